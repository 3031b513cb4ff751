//! The thin layer between Python and `postern_core`: questions out, decisions in, outcomes in batches. It holds no rule.
//!
//! The engine's thread never takes the GIL: it writes into queues and one byte into a pipe that Python's loop watches.

mod convert;
mod engine;
mod news;
mod question;
mod zipkin;

use mimalloc::MiMalloc;
use pyo3::prelude::*;

/// For the engine's own memory, not Python's: a call allocates some dozens of small pieces, which glibc's allocator makes a sixth of its cost.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Of the stub that this was written for: `seam.py` refuses an extension of another.
const SEAM: &str = "970bdd008146e3b8";

/// The extension module.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("seam", SEAM)?;
    module.add("causes", postern_core::call::cause::CAUSES.iter().map(|(_, name)| *name).collect::<Vec<_>>())?;
    module.add("question_kinds", question::KINDS)?;
    module.add("notice_kinds", engine::NOTICES)?;
    module.add("news_kinds", news::KINDS)?;
    module.add_class::<engine::NativeEngine>()?;
    module.add_class::<engine::Tallies>()?;
    module.add_class::<question::Question>()?;
    module.add_function(wrap_pyfunction!(convert::path_class, module)?)?;
    module.add_function(wrap_pyfunction!(convert::path_readings, module)?)?;
    module.add_function(wrap_pyfunction!(convert::forwarded_path, module)?)?;
    module.add_function(wrap_pyfunction!(convert::path_below, module)?)?;
    module.add_function(wrap_pyfunction!(convert::extract_context, module)?)?;
    module.add_function(wrap_pyfunction!(convert::format_context, module)?)?;
    module.add_function(wrap_pyfunction!(convert::read_baggage, module)?)?;
    module.add_function(wrap_pyfunction!(convert::carries, module)?)?;
    module.add_function(wrap_pyfunction!(convert::parse_target, module)?)?;
    module.add_function(wrap_pyfunction!(zipkin::zipkin_span, module)?)
}
