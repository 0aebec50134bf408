"""Methods that bring offline knowledge into a backbone, one per folder."""

import tfctr.frameworks.clickprompt.config
import tfctr.frameworks.cold_items.config
import tfctr.frameworks.ctrl.config
import tfctr.frameworks.distill.config
import tfctr.frameworks.ecdctr.config
import tfctr.frameworks.rok.config
import tfctr.frameworks.srp4ctr.config
import tfctr.frameworks.statistics.config
import tfctr.frameworks.vectors.config  # noqa: F401
