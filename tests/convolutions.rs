//! Convolutions of every form at every level, against the interpreter: kernels, strides, dilations, padding, and sizes
//! of lines and channels that decide how windows are read. Numbers are small integers, so every sum is exact and
//! results are compared bit for bit.

mod common;

use common::{agrees, f32s, lowered};
use lapidary_codegen::loops::BufferKind;
use lapidary_graph::text;

/// Image and kernel of one convolution; pairs are (vertical, horizontal).
struct Conv {
    size: (i64, i64),
    channels: i64,
    out: i64,
    kernel: (i64, i64),
    strides: (i64, i64),
    dilations: (i64, i64),
    begin: (i64, i64),
    end: (i64, i64),
}

/// A 3x3 convolution that keeps the size of a 9x20 image.
const SAME: Conv = Conv {
    size: (9, 20),
    channels: 5,
    out: 9,
    kernel: (3, 3),
    strides: (1, 1),
    dilations: (1, 1),
    begin: (1, 1),
    end: (1, 1),
};

/// Integers from -3 to 3 in no order that a wrong index would keep.
fn numbers(count: i64) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * i + 3 * i + i / 7) % 7 - 3) as f32)
        .collect()
}

fn output(size: i64, kernel: i64, stride: i64, dilation: i64, pads: i64) -> i64 {
    (size + pads - (kernel - 1) * dilation - 1) / stride + 1
}

fn source(c: &Conv) -> String {
    let ((h, w), (kh, kw)) = (c.size, c.kernel);
    let oh = output(h, kh, c.strides.0, c.dilations.0, c.begin.0 + c.end.0);
    let ow = output(w, kw, c.strides.1, c.dilations.1, c.begin.1 + c.end.1);
    let (channels, out) = (c.channels, c.out);
    let list = |count| {
        let all: Vec<String> = numbers(count).iter().map(|v| format!("{v:?}")).collect();
        all.join(", ")
    };
    let pair = |(a, b): (i64, i64)| format!("[{a}, {b}]");
    format!(
        r#"
graph "{h}x{w}x{channels} to {oh}x{ow}x{out}" [n] {{
  input %x: f32[n, {channels}, {h}, {w}]
  const @w: f32[{out}, {channels}, {kh}, {kw}] = [{}]
  const @b: f32[{out}] = [{}]
  %c: f32[n, {out}, {oh}, {ow}] = conv {{kernel: {}, strides: {}, dilations: {}, pads_begin: {}, pads_end: {}}} %x, @w, @b   ; /conv
  %y: f32[n, {out}, {oh}, {ow}] = pointwise (a = %c) => max(a, -20.0)   ; /clip
  output "y" %y
}}
"#,
        list(out * channels * kh * kw),
        list(out),
        pair(c.kernel),
        pair(c.strides),
        pair(c.dilations),
        pair(c.begin),
        pair(c.end),
    )
}

fn case(c: &Conv) {
    let source = source(c);
    for n in [0, 1, 3] {
        let dims = [n, c.channels, c.size.0, c.size.1];
        agrees(&source, &[f32s(&dims, &numbers(dims.iter().product()))]);
    }
}

/// Names of the scratch memory of the kernels.
fn scratch(c: &Conv) -> Vec<String> {
    let graph = text::parse(&source(c)).expect("the graph parses");
    let program = lowered(&graph).expect("it lowers");
    let kernels = program.kernels.values();
    kernels
        .flat_map(|k| &k.loops.buffers)
        .filter(|b| matches!(b.kind, BufferKind::Scratch { .. }))
        .map(|b| b.name.clone())
        .collect()
}

#[test]
fn windows_are_packed_only_where_lines_cannot_be_read_in_place() {
    assert_eq!(scratch(&SAME), ["lines"]);
    let bare = Conv {
        size: (9, 22),
        begin: (0, 0),
        end: (0, 0),
        ..SAME
    };
    assert_eq!(scratch(&bare), [""; 0]);
    assert_eq!(
        scratch(&Conv {
            size: (9, 9),
            ..SAME
        }),
        ["windows"]
    );
    assert_eq!(
        scratch(&Conv {
            dilations: (1, 2),
            ..SAME
        }),
        ["windows"]
    );
    // Two lines of 7 fill a tile, one of 9 does not; rows 4 KiB apart must be few.
    let square = |size| Conv {
        size: (size, size),
        channels: 1024,
        out: 1,
        ..SAME
    };
    assert_eq!(scratch(&square(7)), ["lines"]);
    assert_eq!(scratch(&square(10)), ["windows"]);
}

#[test]
fn short_lines_share_a_tile() {
    for (height, width) in [(7, 7), (4, 6), (5, 4), (9, 3), (3, 2), (6, 1)] {
        for strides in [(1, 1), (2, 1), (1, 2)] {
            case(&Conv {
                size: (height, width),
                strides,
                out: 40,
                ..SAME
            });
        }
    }
}

/// Tasks divide columns, and blocks of lines where an image has more than fit.
#[test]
fn weights_that_are_large() {
    for (size, channels, kernel, strides, out) in [
        ((7, 7), 64, (3, 3), (1, 1), 300),
        ((5, 14), 64, (3, 3), (1, 1), 332),
        ((66, 10), 256, (1, 3), (4, 1), 214),
    ] {
        case(&Conv {
            size,
            channels,
            kernel,
            strides,
            out,
            ..SAME
        });
    }
}

#[test]
fn windows_that_lie_in_the_padding_as_a_whole_sum_nothing() {
    for (channels, out) in [(1, 1), (5, 9), (3, 64), (32, 32)] {
        for strides in [(1, 1), (2, 3)] {
            case(&Conv {
                size: (6, 9),
                channels,
                out,
                strides,
                begin: (4, 5),
                end: (6, 7),
                ..SAME
            });
        }
    }
}

#[test]
fn lines_of_one_tile_and_of_several() {
    for width in [9, 10, 14, 15, 28, 31] {
        case(&Conv {
            size: (6, width),
            ..SAME
        });
    }
}

#[test]
fn few_and_many_channels() {
    for (channels, out) in [(1, 1), (1, 33), (2, 16), (3, 64), (16, 40), (32, 32)] {
        case(&Conv {
            channels,
            out,
            ..SAME
        });
    }
}

#[test]
fn kernels_of_one_line_and_of_one_column() {
    for kernel in [(1, 3), (3, 1), (2, 5), (5, 2)] {
        case(&Conv { kernel, ..SAME });
    }
}

#[test]
fn strides_and_dilations() {
    for (strides, dilations) in [
        ((2, 1), (1, 1)),
        ((1, 2), (1, 1)),
        ((2, 2), (2, 1)),
        ((1, 1), (3, 1)),
        ((3, 1), (1, 2)),
    ] {
        let size = (11, 30);
        case(&Conv {
            size,
            strides,
            dilations,
            ..SAME
        });
    }
}

#[test]
fn padding_of_any_side() {
    for (begin, end) in [
        ((0, 0), (0, 0)),
        ((1, 0), (0, 0)),
        ((0, 0), (0, 2)),
        ((2, 3), (0, 1)),
        ((0, 1), (4, 0)),
        // Windows that see nothing but padding.
        ((5, 6), (4, 7)),
    ] {
        case(&Conv { begin, end, ..SAME });
    }
}

#[test]
fn images_of_more_lines_than_a_task_takes() {
    for lines in [1, 4, 17, 40] {
        case(&Conv {
            size: (lines, 14),
            ..SAME
        });
    }
}
