//! Numbers that change while they are read.

use loom::sync::Arc;

use crate::live::Live;
use crate::on_threads;

/// Two changes in a row use both places, so that the second one writes the place that a slow reader still reads.
pub(crate) fn a_reader_sees_no_mixture_of_two_changes() {
    let live = Arc::new(Live::new([0, 0]));
    on_threads(&live, [true, false], |live, changes| {
        if changes {
            live.set([1, 1]);
            live.set([2, 2]);
            return;
        }
        let [first, second] = live.get();
        assert_eq!(first, second, "a mixture");
        let [later, _] = live.get();
        assert!(later >= first, "back in time");
    });
    assert_eq!(live.get(), [2, 2]);
}
