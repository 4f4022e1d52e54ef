"""Pictures of results."""

from ssdkd_env.extras import load_extra

load_extra("matplotlib", "drawing results")
