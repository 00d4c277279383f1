//! Channels-last convolutions whose windows are read in place.
//!
//! A task computes some lines of one output image, of all channels or, where lines are few and weights many, of some. The lines of the input that they need are copied to scratch memory
//! with zeros where the window leaves the image; without padding they are read where they lie. The window of an output
//! position is then one run of `kernel width * channels` elements a kernel line, with the same jump from run to run,
//! and the next position's window begins `stride * channels` elements further: the left operand of a contraction. So an
//! element is copied about once, not once a tap.
//!
//! Takes convolutions of one group whose output lines, or a few whole ones, fill register tiles; the others pack
//! windows (`conv.rs`).

use crate::builder::Builder;
use crate::contract::store_outputs;
use crate::conv::{Conv, TILE_ROWS, flops, with_bias};
use crate::pack::{Form, PANEL};
use crate::program::Operand;
use crate::{LowerError, Lowering};
use lapidary_codegen::loops::*;
use lapidary_graph::{DType, Dim, Graph, Group};

type Result<T> = std::result::Result<T, LowerError>;

/// Floats of the lines that a task copies: half of a 1 MiB second level cache, the rest of which is for weights.
const LINES_FLOATS: i64 = 128 * 1024;
/// Weights that are read again for each block of lines without harm, in floats: they stay in a second level cache.
const SMALL_WEIGHTS: i64 = 160 * 1024;
/// Tasks that an image is cut into where it has so many lines or panels.
const TASKS: i64 = 4;
/// Elements between copied lines, so that lines of equal rows do not share sets of a first level cache.
const GAP: i64 = 16;
/// Fewest rows in a tile, be it of a line or of some short ones.
const LEAST_ROWS: i64 = TILE_ROWS - 4;

/// Above it a size is not of an image; products of three such stay below 2^63.
const MOST: i64 = 1 << 20;

/// What of a convolution is known when compiling, if its windows can be read in place.
pub(crate) struct Lines {
    out_height: i64,
    out_width: i64,
    height: i64,
    width: i64,
    channels: i64,
    out_channels: i64,
    kernel: [i64; 2],
    strides: [i64; 2],
    /// Distance of the kernel's lines, in lines of the image.
    dilation: i64,
    /// Lines above the image, columns before it.
    pads: [i64; 2],
    /// Whether windows leave the image.
    padded: bool,
}

impl Lines {
    pub fn of(g: &Graph, c: &Conv, w: &[i64]) -> Option<Lines> {
        let known = |v, axis: usize| g.dims(v).get(axis)?.as_const().filter(|d| *d > 0);
        let win = c.window;
        let &[out_channels, channels, kh, kw] = w else {
            return None;
        };
        let pad = |d: Option<&Dim>| d?.as_const();
        let pads = [pad(win.pads_begin.first())?, pad(win.pads_begin.get(1))?];
        let ends = [pad(win.pads_end.first())?, pad(win.pads_end.get(1))?];
        let (&[sh, sw], &[dh, dw]) = (win.strides.as_slice(), win.dilations.as_slice()) else {
            return None;
        };
        let lines = Lines {
            out_height: known(c.y, 1)?,
            out_width: known(c.y, 2)?,
            height: known(c.x, 1)?,
            width: known(c.x, 2)?,
            channels,
            out_channels,
            kernel: [kh, kw],
            strides: [sh, sw],
            dilation: dh,
            pads,
            padded: pads.iter().chain(&ends).any(|p| *p != 0),
        };
        // Whatever the model says, no number below wraps.
        let sizes = [
            out_channels,
            channels,
            kh,
            kw,
            sh,
            sw,
            dh,
            lines.out_height,
            lines.out_width,
            lines.height,
            lines.width,
        ];
        if sizes.iter().chain(&pads).chain(&ends).any(|n| *n > MOST) {
            return None;
        }
        let tiles = (lines.out_width + TILE_ROWS - 1) / TILE_ROWS;
        let (rows, fill) = match lines.out_width <= TILE_ROWS {
            true => (
                lines.out_width,
                TILE_ROWS / lines.out_width * lines.out_width,
            ),
            false => (TILE_ROWS, lines.out_width / tiles),
        };
        // Rows of the left operand a multiple of 2 KiB apart share one or two sets of a first level cache of 4 KiB a way
        // and at least eight ways; few of a line may.
        let apart = match (channels * sw) % 1024 {
            0 => rows == 1 || lines.padded && rows <= 7,
            512 => lines.padded && rows <= 8,
            _ => true,
        };
        let fits = c.groups.is_const(1)
            && dw == 1
            && kh * kw > 1
            && pads.iter().chain(&ends).all(|p| *p >= 0)
            && apart
            && fill >= LEAST_ROWS
            && lines.line() <= LINES_FLOATS
            && lines.input_lines(1) <= LINES_FLOATS / lines.line();
        fits.then_some(lines)
    }

    /// Lines of the input that some lines of the output need.
    fn input_lines(&self, lines: i64) -> i64 {
        (lines - 1) * self.strides[0] + (self.kernel[0] - 1) * self.dilation + 1
    }

    /// Elements of a line as the contraction reads it.
    fn line(&self) -> i64 {
        match self.padded {
            true => ((self.out_width - 1) * self.strides[1] + self.kernel[1]) * self.channels + GAP,
            false => self.width * self.channels,
        }
    }

    fn depth(&self) -> i64 {
        self.kernel[0] * self.kernel[1] * self.channels
    }

    /// Output lines of a task.
    fn block(&self) -> i64 {
        let least = (self.kernel[0] - 1) * self.dilation + 1;
        let fit = (LINES_FLOATS / self.line() - least) / self.strides[0] + 1;
        // Large weights are read as few times as can be: tasks divide columns instead.
        let share = match self.depth() * self.out_channels <= SMALL_WEIGHTS {
            true => (self.out_height + TASKS - 1) / TASKS,
            false => self.out_height,
        };
        let most = fit.min(share).clamp(1, self.out_height);
        // Blocks of equal size, as far as they go.
        let blocks = (self.out_height + most - 1) / most;
        (self.out_height + blocks - 1) / blocks
    }

    /// Panels of weights of a task, where an image has this many blocks of lines.
    fn run(&self, blocks: i64) -> i64 {
        let panels = (self.out_channels + PANEL - 1) / PANEL;
        match blocks >= TASKS {
            true => panels,
            false => (panels * blocks / TASKS).max(1),
        }
    }
}

pub(crate) fn lines(l: &mut Lowering, g: &Graph, group: &Group, c: &Conv, s: &Lines) -> Result<()> {
    let mut b = Builder::new(g, group, g.nodes[c.node].name());
    let (xs, ys) = (b.shape(c.x)?, b.shape(c.y)?);
    let (block, line) = (s.block(), s.line());
    let blocks = (s.out_height + block - 1) / block;
    let columns = s.run(blocks) * PANEL;
    let col_blocks = (s.out_channels + columns - 1) / columns;
    b.kernel.tasks = ys[0].mul(&Dim::Const(blocks * col_blocks));
    let task = Dim::from(b.kernel.sym(SymKind::Task));
    // Columns first: tasks that follow each other share copied lines.
    let column = task.modulo(&Dim::Const(col_blocks));
    let position = task.floor_div(&Dim::Const(col_blocks));
    let image_number = match xs[0].as_const() {
        Some(1) => Dim::Const(0),
        _ => position.floor_div(&Dim::Const(blocks)),
    };
    let first = position
        .sub(&image_number.mul(&Dim::Const(blocks)))
        .mul(&Dim::Const(block));
    let end = match s.out_height % block {
        0 => first.add(&Dim::Const(block)),
        _ => first
            .add(&Dim::Const(block))
            .minimum(&Dim::Const(s.out_height)),
    };
    // The first input line that the task reads, inside of the image or above it.
    let top = first
        .mul(&Dim::Const(s.strides[0]))
        .sub(&Dim::Const(s.pads[0]));
    let image = b.input(c.x)?;
    let image_at = image_number.mul(&Dim::Const(s.height * s.width * s.channels));
    let (left, left_at) = if s.padded {
        let buffer = b.scratch("lines", Mem::F32, &Dim::Const(s.input_lines(block) * line));
        let count = end
            .sub(&first)
            .sub(&Dim::Const(1))
            .mul(&Dim::Const(s.strides[0]))
            .add(&Dim::Const((s.kernel[0] - 1) * s.dilation + 1));
        b.begin_block();
        copy_lines(&mut b, s, (image, &image_at), buffer, &top, &count);
        let copy = b.end_block();
        if col_blocks == 1 {
            copy.into_iter().for_each(|s| b.push(s));
        } else {
            // Of tasks that share lines, the first that a worker meets copies.
            let begin = Dim::from(b.kernel.sym(SymKind::TaskBegin));
            b.push(Stmt::If {
                all: vec![column.minimum(&task.sub(&begin)).neg()],
                then: copy,
                otherwise: Vec::new(),
            });
        }
        (buffer, Dim::Const(0))
    } else {
        (image, image_at.add(&top.mul(&Dim::Const(line))))
    };

    let run = s.kernel[1] * s.channels;
    let depth = s.depth();
    let form = Form::ConvPanels {
        groups: 1,
        n: s.out_channels,
        c: s.channels,
        taps: s.kernel[0] * s.kernel[1],
    };
    let id = l.prepare(g, c.w, form)?;
    let weights = b.input_operand(Operand::Const(id), DType::F32)?;
    // Rows are the positions of all lines of the block: each panel of weights meets them all while it is in the cache.
    let width = Dim::Const(s.out_width);
    let rows = end.sub(&first).mul(&width);
    let row = b.variable(Some(&Dim::Const(block * s.out_width)));
    let col = b.variable(Some(&Dim::Const(s.out_channels)));
    let k = b.variable(Some(&Dim::Const(depth)));
    let (step, line_step) = (s.strides[1] * s.channels, s.strides[0] * line);
    let mut a_at = left_at
        .add(&Dim::from(row).mul(&Dim::Const(step)))
        .add(&Dim::from(k));
    let lines = Dim::from(row).floor_div(&width);
    a_at = a_at.add(&lines.mul(&Dim::Const(line_step - s.out_width * step)));
    let jumps = Dim::from(k).floor_div(&Dim::Const(run));
    a_at = a_at.add(&jumps.mul(&Dim::Const(s.dilation * line - run)));
    let c0 = column.mul(&Dim::Const(columns));
    let c1 = match s.out_channels % columns {
        0 => c0.add(&Dim::Const(columns)),
        _ => c0
            .add(&Dim::Const(columns))
            .minimum(&Dim::Const(s.out_channels)),
    };
    let acc = b.kernel.local(Ty::Num(Elem::F32));
    b.begin_block();
    with_bias(&mut b, c, acc, &Dim::from(col))?;
    // The result's positions are one flat axis here.
    let place = image_number
        .mul(&Dim::Const(s.out_height))
        .add(&first)
        .mul(&width)
        .add(&Dim::from(row));
    let all = ys[0].mul(&Dim::Const(s.out_height * s.out_width));
    let mut index = b.reshape_index(&ys[..3], &[all], &[place]);
    index.push(Dim::from(col));
    store_outputs(&mut b, group, &ys, &index)?;
    let epilogue = b.end_block();
    b.push(Stmt::Contract(Box::new(Contract {
        row,
        rows: (Dim::Const(0), rows),
        col,
        cols: (c0, c1),
        k,
        depth: Dim::Const(depth),
        a: left,
        a_at,
        b: BOperand {
            buf: weights,
            base: Dim::Const(0),
            k_stride: Dim::Const(PANEL),
            panel: Some((PANEL, Dim::Const(PANEL * depth))),
        },
        acc,
        epilogue,
    })));
    let flops = flops(g, c);
    let (loops, step) = b.finish(group.nodes.clone(), flops.clone(), flops)?;
    l.kernel(loops, step);
    Ok(())
}

/// Copies `count` lines of the image from line `top` on, with zeros around the image.
fn copy_lines(
    b: &mut Builder,
    s: &Lines,
    (image, image_at): (Buf, &Dim),
    buffer: Buf,
    top: &Dim,
    count: &Dim,
) {
    let line = s.line();
    let before = s.pads[1] * s.channels;
    let copied = (s.width * s.channels).min(line - before).max(0);
    let zero = b.f32(0.0);
    let number = Dim::from(b.open_range(&Dim::Const(0), count));
    let into = number.mul(&Dim::Const(line));
    let source = top.add(&number);
    let clear = |b: &mut Builder, from: i64, to: i64| {
        if from < to {
            let e = b.open_range(&Dim::Const(from), &Dim::Const(to));
            b.store(buffer, into.add(&Dim::from(e)), zero);
            b.close();
        }
    };
    b.begin_block();
    clear(b, 0, before.min(line));
    if copied > 0 {
        let e = Dim::from(b.open_range(&Dim::Const(0), &Dim::Const(copied)));
        let from = source.mul(&Dim::Const(s.width * s.channels));
        let value = b.load(image, image_at.add(&from).add(&e));
        b.store(buffer, into.add(&Dim::Const(before)).add(&e), value);
        b.close();
    }
    clear(b, before + copied, line);
    let inside = b.end_block();
    b.begin_block();
    clear(b, 0, line);
    let outside = b.end_block();
    let within = source.minimum(&Dim::Const(s.height - 1).sub(&source));
    b.push(Stmt::If {
        all: vec![within],
        then: inside,
        otherwise: outside,
    });
    b.close();
}
