"""Options of sessions and of runs, with onnxruntime's names and defaults.

Plain attributes, so that they pickle. What changes nothing here says so where it is described;
what would promise something that Ortolan does not do raises.
"""

from __future__ import annotations

import enum
from typing import Any, NoReturn

from ortolan import errors

__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "RunOptions",
    "SessionOptions",
]


class GraphOptimizationLevel(enum.IntEnum):
    """How much the converter rewrites a model; onnxruntime's names and numbers."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99

    @property
    def level(self) -> str:
        """The converter's name of the level."""
        return _LEVELS[self]


_LEVELS = dict(
    zip(GraphOptimizationLevel, ("disable", "basic", "extended", "layout", "all"), strict=True)
)


class ExecutionMode(enum.IntEnum):
    """Accepted; nodes run one after the other, each on several threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(enum.IntEnum):
    """Accepted; the order is that of the file."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


class _Entries:
    """Configuration entries: text by key."""

    def __init__(self) -> None:
        self._entries: dict[str, str] = {}

    def _get(self, key: str) -> str:
        if key not in self._entries:
            raise errors.InvalidArgument(f"no configuration entry {key!r} was set")
        return self._entries[key]


class SessionOptions(_Entries):
    """What a session is made with.

    Attributes:
        graph_optimization_level: for ``.onnx`` models; ``.ort`` files are run as they are.
        intra_op_num_threads: threads that share the work of an operator; 0: one per processor.
        optimized_model_filepath: where to write the model as it will be run: in ORT format if
            the name ends in ``.ort`` or the entry ``session.save_model_format`` is ``ORT``,
            else as ONNX.
        enable_profiling: record the time of every node; see ``InferenceSession.end_profiling``.
        profile_file_prefix: what the profile's file name begins with.
        log_severity_level: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal; -1: the default
            logger's.
        logid: stands in the messages of the session.
        log_verbosity_level: accepted, changes nothing.
        inter_op_num_threads: accepted, changes nothing: nodes run one after the other.
        execution_mode: accepted, changes nothing, as above.
        execution_order: accepted, changes nothing.
        enable_cpu_mem_arena: accepted, changes nothing: a run always has its planned arena.
        enable_mem_pattern: as above.
        enable_mem_reuse: as above.
        use_deterministic_compute: accepted: results never depend on the number of threads.
        use_per_session_threads: accepted; the process has one pool.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        self.intra_op_num_threads = 0
        self.inter_op_num_threads = 0
        self.optimized_model_filepath = ""
        self.enable_profiling = False
        self.profile_file_prefix = "ortolan_profile_"
        self.log_severity_level = -1
        self.log_verbosity_level = 0
        self.logid = ""
        self.execution_mode = ExecutionMode.ORT_SEQUENTIAL
        self.execution_order = ExecutionOrder.DEFAULT
        self.enable_cpu_mem_arena = True
        self.enable_mem_pattern = True
        self.enable_mem_reuse = True
        self.use_deterministic_compute = False
        self.use_per_session_threads = True
        self._dimensions: dict[str, int] = {}
        self._denotations: dict[str, int] = {}
        self._initializers: dict[str, Any] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Sets a configuration entry, e.g. ``session.set_denormal_as_zero`` to ``"1"``.

        The limits of what a model may use (``ortolan.max_run_bytes``...) are entries as well:
        see the page on errors.
        Keys that are not known are kept and change nothing, as in onnxruntime.
        """
        self._entries[str(key)] = str(value)

    def get_session_config_entry(self, key: str) -> str:
        """The value of an entry.

        Raises:
            ortolan.errors.InvalidArgument: it was not set.
        """
        return self._get(key)

    def add_free_dimension_override_by_name(self, name: str, value: int) -> None:
        """Gives the dimension of this symbolic name a fixed size in all inputs."""
        self._dimensions[name] = int(value)

    def add_free_dimension_override_by_denotation(self, denotation: str, value: int) -> None:
        """Gives the dimensions that the model denotes so, such as DATA_BATCH, a fixed size."""
        self._denotations[denotation] = int(value)

    def add_initializer(self, name: str, value: Any) -> None:
        """Replaces a weight of the model.

        Args:
            name: of the initializer.
            value: an :class:`ortolan.OrtValue` or an array of its type and shape.
        """
        self._initializers[name] = value

    def add_external_initializers(self, names: list[str], values: list[Any]) -> None:
        """Gives the weights that the model keeps in other files.

        Args:
            names: of the initializers.
            values: an :class:`ortolan.OrtValue` or an array for each.
        """
        if len(names) != len(values):
            raise errors.InvalidArgument(f"{len(names)} names do not go with {len(values)} values")
        for name, value in zip(names, values, strict=True):
            self.add_initializer(name, value)

    def add_provider(self, provider_name: str, provider_options: dict[str, str]) -> None:
        """Accepts the CPU's provider, which has no options.

        Raises:
            ortolan.errors.NotImplemented: for any other.
        """
        if provider_name != "CPUExecutionProvider":
            raise errors.NotImplemented(
                f"the execution provider {provider_name} is not in this package; "
                "it has CPUExecutionProvider"
            )
        del provider_options

    def has_providers(self) -> bool:
        """Whether providers were chosen by these options: never."""
        return False

    def register_custom_ops_library(self, library_path: str) -> NoReturn:
        """Not supported.

        Raises:
            ortolan.errors.NotImplemented: always.
        """
        raise errors.NotImplemented(
            f"{library_path}: libraries of custom operators are not supported; operators are "
            "added to Ortolan's catalog (docs/operators.md)"
        )


class RunOptions(_Entries):
    """Options of one call, or of several at once.

    Attributes:
        terminate: set it from another thread to stop the runs before their next node.
        only_execute_path_to_fetches: accepted, changes nothing: all nodes run.
        log_severity_level, log_verbosity_level, logid: accepted, change nothing: runs do not log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.only_execute_path_to_fetches = False
        self.log_severity_level = -1
        self.log_verbosity_level = 0
        self.logid = ""
        self._terminate = False
        # Those in flight: what cancels them.
        self._calls: set[Any] = set()

    @property
    def terminate(self) -> bool:
        """Whether runs with these options stop."""
        return self._terminate

    @terminate.setter
    def terminate(self, value: bool) -> None:
        self._terminate = bool(value)
        if self._terminate:
            for call in list(self._calls):
                call.cancel()

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Sets a configuration entry.

        ``ortolan.max_run_bytes``, ``ortolan.max_iterations`` and ``ortolan.max_milliseconds``
        limit the runs as the entries of that name of :class:`SessionOptions` do, and go before
        them. Other keys are kept and change nothing.
        """
        self._entries[str(key)] = str(value)

    def get_run_config_entry(self, key: str) -> str:
        """The value of an entry.

        Raises:
            ortolan.errors.InvalidArgument: it was not set.
        """
        return self._get(key)

    def add_active_adapter(self, adapter: Any) -> NoReturn:
        """Not supported.

        Raises:
            ortolan.errors.NotImplemented: always.
        """
        raise errors.NotImplemented("LoRA adapters are not supported")
