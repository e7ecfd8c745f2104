"""Models judged as they are used: what they answer, and how fast."""
