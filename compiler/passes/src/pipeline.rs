//! The pipeline: which passes run, in which order, and the driver that runs them.
//!
//! In: a graph that [`lapidary_graph::verify`] accepts. Out: an equivalent one, and a [`Report`].
//! The driver can stop after a pass, leave passes out (to bisect a wrong result), verify after
//! each, and show the graph after each.

use crate::remark::{Remark, Remarks};
use lapidary_graph::{Graph, NodeId, Op};
use std::time::{Duration, Instant};

/// A rewrite: changes the graph in place and says whether it did.
pub type PassFn = fn(&mut Graph, &mut Remarks) -> bool;

/// A named rewrite.
#[derive(Clone, Copy)]
pub struct Pass {
    /// What options and reports call it.
    pub name: &'static str,
    /// What it does.
    pub run: PassFn,
}

/// Passes that run one after the other.
#[derive(Clone, Copy)]
pub struct Stage {
    /// In the order in which they run.
    pub passes: &'static [Pass],
    /// At most this many rounds; a round that changes nothing is the last.
    pub rounds: usize,
}

macro_rules! pass {
    ($module:ident) => {
        Pass {
            name: stringify!($module),
            run: crate::$module::run,
        }
    };
}

const CANONICAL: Stage = Stage {
    passes: &[
        pass!(fold),
        pass!(pointwise),
        pass!(views),
        pass!(regions),
        pass!(cse),
        pass!(dce),
    ],
    rounds: 12,
};

const fn once(passes: &'static [Pass]) -> Stage {
    Stage { passes, rounds: 1 }
}

/// The passes in the order in which they run.
pub const PIPELINE: &[Stage] = &[
    CANONICAL,
    once(&[pass!(attention), pass!(siblings), pass!(conv_affine)]),
    CANONICAL,
    once(&[pass!(layout)]),
    once(&[pass!(expand)]),
    CANONICAL,
];

/// Told of a pass by its name, with the graph that it left.
pub type After = Box<dyn Fn(&str, &Graph)>;

/// What to run and what to watch.
#[derive(Default)]
pub struct Options {
    /// The last pass to run (its first occurrence).
    pub stop_after: Option<String>,
    /// Passes to leave out.
    pub skip: Vec<String>,
    /// Verifies the graph after each pass that changed it. Debug builds always do.
    pub verify: bool,
    /// Called after each pass that changed the graph.
    pub after: Option<After>,
}

/// One run of one pass.
#[derive(Clone, Debug)]
pub struct PassRun {
    /// The pass.
    pub name: &'static str,
    /// Whether it changed the graph.
    pub changed: bool,
    /// How long it took.
    pub time: Duration,
    /// Live nodes afterwards.
    pub nodes: usize,
}

/// What [`optimize`] did.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Every run of every pass.
    pub runs: Vec<PassRun>,
    /// What passes wanted to do and could not.
    pub remarks: Vec<Remark>,
}

/// Why [`optimize`] stopped.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// No pass has this name.
    #[error("there is no pass named `{name}`; passes are: {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A pass is wrong.
    #[error("pass `{pass}` left an invalid graph: {message}")]
    Invalid {
        /// The pass.
        pass: &'static str,
        /// What the verifier says.
        message: String,
    },
}

/// The names of all passes, each once.
pub fn pass_names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for pass in PIPELINE.iter().flat_map(|s| s.passes) {
        if !names.contains(&pass.name) {
            names.push(pass.name);
        }
    }
    names
}

/// Runs the pipeline over a graph and the bodies of its regions.
pub fn optimize(graph: &mut Graph, options: &Options) -> Result<Report, PassError> {
    let known = pass_names();
    if let Some(name) = options
        .skip
        .iter()
        .chain(&options.stop_after)
        .find(|n| !known.contains(&n.as_str()))
    {
        return Err(PassError::Unknown {
            name: name.clone(),
            known: known.join(", "),
        });
    }
    let mut remarks = Remarks::default();
    let mut runs = Vec::new();
    let after = options.after.as_deref();
    run(graph, options, after, &mut remarks, &mut runs)?;
    Ok(Report {
        runs,
        remarks: remarks.list,
    })
}

/// What is told of the graph after a pass.
type Watch<'a> = Option<&'a dyn Fn(&str, &Graph)>;

/// The pipeline over one graph. Bodies follow the first stage, which may tell them more of what they
/// read; the stages behind it do not look into them.
fn run(
    graph: &mut Graph,
    options: &Options,
    after: Watch<'_>,
    remarks: &mut Remarks,
    runs: &mut Vec<PassRun>,
) -> Result<(), PassError> {
    for (i, stage) in PIPELINE.iter().enumerate() {
        let stopped = run_stage(graph, stage, options, after, remarks, runs)?;
        if i == 0 {
            run_bodies(graph, options, after, remarks, runs)?;
        }
        if stopped {
            break;
        }
    }
    Ok(())
}

/// The pipeline over every body of a graph's regions.
fn run_bodies(
    graph: &mut Graph,
    options: &Options,
    after: Watch<'_>,
    remarks: &mut Remarks,
    runs: &mut Vec<PassRun>,
) -> Result<(), PassError> {
    for n in graph.order.clone() {
        let Op::Region(region) = &graph.nodes[n].op else {
            continue;
        };
        for b in 0..region.bodies.len() {
            let Some(mut body) = take_body(graph, n, b) else {
                continue;
            };
            // Who watches sees the whole graph, with this body as it is now.
            let around = after.map(|after| (after, graph.clone()));
            let watch = around.as_ref().map(|(after, around)| {
                move |name: &str, body: &Graph| {
                    let mut whole = around.clone();
                    put_body(&mut whole, n, b, body.clone());
                    after(name, &whole);
                }
            });
            let watch: Watch<'_> = match &watch {
                Some(watch) => Some(watch),
                None => None,
            };
            let result = run(&mut body, options, watch, remarks, runs);
            put_body(graph, n, b, body);
            result?;
        }
    }
    Ok(())
}

fn take_body(graph: &mut Graph, n: NodeId, b: usize) -> Option<Graph> {
    match &mut graph.nodes[n].op {
        Op::Region(region) => {
            let body = region.bodies.get_mut(b)?;
            Some(std::mem::take(&mut body.graph))
        }
        _ => None,
    }
}

fn put_body(graph: &mut Graph, n: NodeId, b: usize, body: Graph) {
    if let Op::Region(region) = &mut graph.nodes[n].op
        && let Some(place) = region.bodies.get_mut(b)
    {
        place.graph = body;
    }
}

/// Runs a stage; whether it was told to stop there.
fn run_stage(
    graph: &mut Graph,
    stage: &Stage,
    options: &Options,
    after: Watch<'_>,
    remarks: &mut Remarks,
    runs: &mut Vec<PassRun>,
) -> Result<bool, PassError> {
    for _ in 0..stage.rounds {
        let mut any = false;
        for pass in stage.passes {
            if options.skip.iter().any(|s| s == pass.name) {
                continue;
            }
            let start = Instant::now();
            let changed = (pass.run)(graph, remarks);
            runs.push(PassRun {
                name: pass.name,
                changed,
                time: start.elapsed(),
                nodes: graph.order.len(),
            });
            any |= changed;
            if changed {
                check(graph, pass.name, options)?;
                if let Some(after) = after {
                    after(pass.name, graph);
                }
            }
            if options.stop_after.as_deref() == Some(pass.name) {
                return Ok(true);
            }
        }
        if !any {
            break;
        }
    }
    Ok(false)
}

fn check(graph: &Graph, pass: &'static str, options: &Options) -> Result<(), PassError> {
    if !(options.verify || cfg!(debug_assertions)) {
        return Ok(());
    }
    crate::order::check(graph).map_err(|message| PassError::Invalid { pass, message })?;
    lapidary_graph::verify::verify(graph).map_err(|errors| PassError::Invalid {
        pass,
        message: errors
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
    })
}

/// Runs the canonical stage alone over a graph, and not over the bodies of its regions: what holds whatever the model is
/// compiled for. Outputs stay what they are.
pub fn canonicalize(graph: &mut Graph) -> Result<(), PassError> {
    let mut remarks = Remarks::default();
    run_stage(
        graph,
        &CANONICAL,
        &Options::default(),
        None,
        &mut remarks,
        &mut Vec::new(),
    )?;
    Ok(())
}
