"""What holds for all tests: no model that was converted before hides what a conversion does now."""

import os

os.environ["ORTOLAN_CACHE"] = "off"
