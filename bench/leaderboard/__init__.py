"""A leaderboard: a static site from a folder of submissions, each a store that is checked first."""
