"""vLLM, and engines that took over its names.

``vllm:num_requests_running`` and ``vllm:num_requests_waiting`` carry the load. Labels distinguish the
engines of one API server (data-parallel ranks); the scanner sums over them. Old and new names of the KV
gauges are both read (vLLM #29330 removed the ``gpu_`` ones).
"""

from skylb._core import DIALECT_VLLM
from skylb.control.engines.dialect import Dialect

VLLM = Dialect(name="vllm", number=DIALECT_VLLM, mark=b"vllm:")
