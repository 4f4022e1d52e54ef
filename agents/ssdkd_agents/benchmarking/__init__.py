"""Playing episodes into result files, and what is made of the files: tables, a leaderboard, replays."""
