"""The command `ssdkd`: a module for each subcommand, with its arguments and what it does with them."""
