"""The same as `ssdkd results import`, from a clone."""

from ssdkd_agents.commands.import_lines import run

if __name__ == "__main__":
    run()
