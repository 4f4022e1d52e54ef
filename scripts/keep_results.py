"""The same as `ssdkd results keep`, from a clone."""

from ssdkd_agents.commands.keep import run

if __name__ == "__main__":
    run()
