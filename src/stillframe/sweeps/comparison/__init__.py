"""The page about a sweep: leaderboard, cost, parameters, disagreements."""
