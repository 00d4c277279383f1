//! Model files under guard: the runtime's guards, given to the layer that maps files.
//!
//! The ONNX layer knows nothing of the runtime, and the runtime nothing of models; a process has one handler.

use std::path::Path;

use lapidary_onnx::Watch;
use lapidary_runtime::guard::Guard;

struct Guarded(Guard);

impl Watch for Guarded {
    fn is_lost(&self) -> bool {
        self.0.is_lost()
    }
}

/// Has model files guarded that are mapped from now on.
pub(crate) fn models() {
    lapidary_onnx::watch_mappings(watch);
}

fn watch(mapping: *const [u8], path: &Path) -> Option<Box<dyn Watch>> {
    // SAFETY: the mapping is whole, read-only, and outlives its watch.
    let guard = unsafe { Guard::new(mapping, path) }?;
    Some(Box::new(Guarded(guard)))
}
