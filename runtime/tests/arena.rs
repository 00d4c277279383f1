//! The arena plan: buffers that live at once never overlap, whatever their lives and sizes.

use lapidary_runtime::ffi::lap_plan;
use proptest::prelude::*;

fn plan(buffers: &[(i32, i32, i64)]) -> (i64, Vec<i64>) {
    let first: Vec<i32> = buffers.iter().map(|b| b.0).collect();
    let last: Vec<i32> = buffers.iter().map(|b| b.1).collect();
    let sizes: Vec<i64> = buffers.iter().map(|b| b.2).collect();
    let mut offsets = vec![0; buffers.len()];
    // SAFETY: four arrays of the same length.
    let total = unsafe {
        lap_plan(
            buffers.len() as i32,
            first.as_ptr(),
            last.as_ptr(),
            sizes.as_ptr(),
            offsets.as_mut_ptr(),
        )
    };
    (total, offsets)
}

proptest! {
    #[test]
    fn live_buffers_do_not_overlap(
        buffers in prop::collection::vec((0..40i32, 0..15i32, prop_oneof![Just(0i64), Just(-1), 1..5000i64]), 0..80)
    ) {
        let buffers: Vec<_> = buffers.into_iter().map(|(first, life, size)| (first, first + life, size)).collect();
        let (total, offsets) = plan(&buffers);
        let held = |size: i64| (size.max(0) + 63) & !63;
        let mut sum = 0;
        for (i, &(first, last, size)) in buffers.iter().enumerate() {
            prop_assert_eq!(offsets[i] % 64, 0);
            prop_assert!(offsets[i] + held(size) <= total);
            sum += held(size);
            for (j, &(other_first, other_last, other_size)) in buffers.iter().enumerate().take(i) {
                if size > 0 && other_size > 0 && first <= other_last && other_first <= last {
                    let apart = offsets[i] + size <= offsets[j] || offsets[j] + other_size <= offsets[i];
                    prop_assert!(apart, "{} and {} overlap", i, j);
                }
            }
        }
        prop_assert!(total <= sum);
        // No plan is smaller than what is live at one step.
        let peak = (0..60)
            .map(|step| buffers.iter().filter(|b| b.0 <= step && step <= b.1).map(|b| held(b.2)).sum::<i64>())
            .max()
            .unwrap_or(0);
        prop_assert!(total >= peak);
    }
}

#[test]
fn a_chain_needs_two_buffers() {
    let chain: Vec<_> = (0..10).map(|step| (step, step + 1, 1000)).collect();
    assert_eq!(plan(&chain).0, 2 * 1024);
}

#[test]
fn sizes_beyond_reason_are_refused() {
    assert_eq!(plan(&[(0, 1, i64::MAX / 2)]).0, -1);
}
