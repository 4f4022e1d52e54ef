"""`python -m ssdkd_agents` is the command `ssdkd`."""

from ssdkd_agents.commands.main import main

main()
