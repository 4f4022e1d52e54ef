"""The same as `ssdkd results export`, from a clone."""

from ssdkd_agents.commands.export_lines import run

if __name__ == "__main__":
    run()
