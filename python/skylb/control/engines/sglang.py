"""SGLang: ``sglang:num_running_reqs``, ``sglang:num_queue_reqs``, ``sglang:token_usage``."""

from skylb._core import DIALECT_SGLANG
from skylb.control.engines.dialect import Dialect

SGLANG = Dialect(name="sglang", number=DIALECT_SGLANG, mark=b"sglang:")
