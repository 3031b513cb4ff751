"""Collects faults and warnings while documents are compiled."""

from msgspec import Struct, field

from policies.errors import DurationError, Fault
from policies.reading.construct import Place
from policies.reading.documents import MARK, Document
from policies.reading.durations import is_bare, parse_duration


class Findings(Struct):
    """Grows during one load: `faults` stop it (the lenient ones only without `--config-lenient`), `notes` and `remarks` don't.

    `notes` are warnings with a place, `remarks` those without. `written`: the faults in how values are written, by which
    these are missing in their documents.
    """

    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    written: list[Fault] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """All of them, as lines."""
        return [*map(str, self.notes), *self.remarks]

    def fault(self, document: Document, place: Place, problem: str, *, is_lenient: bool = False) -> None:
        """Note a fault at a field."""
        self.faults.append(document.fault(place, problem, is_lenient=is_lenient))

    def warn(self, document: Document, place: Place, text: str) -> None:
        """Note something that the author should know and that changes nothing."""
        self.notes.append(document.fault(place, text))

    def drop_echoes(self) -> None:
        """Leave out faults of lines whose values are missing as they are written wrongly, and what would tell of a mark in their place."""
        own = set(self.written)
        places = {(fault.path, fault.line) for fault in own}
        self.faults = [
            fault
            for fault in self.faults
            if fault in own
            or not ((fault.path, fault.line) in places or MARK in fault.problem or MARK in fault.field)
        ]

    def duration(self, document: Document, place: Place, text: str) -> float | None:
        """Seconds of a duration, None where nothing is written; what is not a duration, or has no unit, is a fault."""
        if not text:
            return None
        if is_bare(text):
            problem = f"`{text}` has no unit and counts milliseconds (write {text}ms, or {text}s for seconds)"
            self.fault(document, place, problem, is_lenient=True)
        try:
            return parse_duration(text)
        except DurationError as error:
            self.fault(document, place, str(error))
            return None


class Spot(Struct, frozen=True):
    """A place in a document, below which a reader notes what it finds."""

    document: Document
    findings: Findings
    place: Place = ()

    def fault(self, below: str | Place, problem: str, *, is_lenient: bool = False) -> None:
        """Note a fault at a field below."""
        self.findings.fault(self.document, self._at(below), problem, is_lenient=is_lenient)

    def warn(self, below: str | Place, text: str) -> None:
        """Note at a field below what the author should know."""
        self.findings.warn(self.document, self._at(below), text)

    def _at(self, below: str | Place) -> Place:
        return (*self.place, below) if isinstance(below, str) else (*self.place, *below)
