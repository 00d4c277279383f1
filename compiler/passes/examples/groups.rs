//! Prints the fusion groups of a model: `cargo run -p lapidary-passes --example groups -- model.onnx`.
//! With `-q` the totals alone; with `--graph` the optimized graph in place of the groups.

use lapidary_graph::{Graph, GroupKind, NodeId};
use std::collections::BTreeMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quiet = args.iter().any(|a| a == "-q");
    let only_graph = args.iter().any(|a| a == "--graph");
    let path = args
        .iter()
        .find(|a| !a.starts_with('-'))
        .ok_or("usage: groups model.onnx [-q]")?;
    let model = lapidary_onnx::ModelFile::open(Path::new(path))?;
    let start = std::time::Instant::now();
    let mut graph = lapidary_import::import(&model, &Default::default())?;
    let imported = (start.elapsed(), graph.order.len());
    let start = std::time::Instant::now();
    let report = lapidary_passes::optimize(&mut graph, &Default::default())?;
    let optimized = start.elapsed();
    let (groups, remarks) = lapidary_passes::fuse(&graph);
    if only_graph {
        for n in &graph.order {
            println!("{}", line(&graph, *n));
        }
        return Ok(());
    }
    if !quiet {
        for (i, g) in groups.iter().enumerate() {
            println!("{i:4} {:?} {} nodes", g.kind, g.nodes.len());
            for n in &g.nodes {
                println!("       {}", line(&graph, *n));
            }
        }
        for r in report.remarks.iter().chain(&remarks) {
            println!("remark {r}");
        }
        let mut spent: BTreeMap<&str, std::time::Duration> = BTreeMap::new();
        for r in &report.runs {
            *spent.entry(r.name).or_default() += r.time;
        }
        println!("time {spent:?}");
    }
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for g in groups.iter() {
        let name = match (g.kind, g.nodes.as_slice()) {
            (GroupKind::Single, [n]) => format!("Single {}", graph.nodes[*n].op.name()),
            (k, _) => format!("{k:?}"),
        };
        *kinds.entry(name).or_default() += 1;
    }
    println!(
        "{path}: {} nodes imported ({:.0?}), {} optimized ({:.0?}), {} groups {kinds:?}",
        imported.1,
        imported.0,
        graph.order.len(),
        optimized,
        groups.len()
    );
    Ok(())
}

fn line(graph: &Graph, n: NodeId) -> String {
    let node = &graph.nodes[n];
    let ty = |v: &lapidary_graph::ValueId| {
        let t = graph.ty(*v);
        let dims: Vec<String> = t.dims().iter().map(|d| graph.dim_text(d)).collect();
        let c = if graph.constant(*v).is_some() {
            "const "
        } else {
            ""
        };
        format!("{v}:{c}{}[{}]", t.dtype, dims.join(", "))
    };
    let inputs: Vec<String> = node.inputs.iter().flatten().map(ty).collect();
    let outputs: Vec<String> = node.outputs.iter().map(ty).collect();
    let mut op = format!("{:?}", node.op);
    if op.len() > 100 {
        op = node.op.name().to_string();
    }
    format!(
        "{} = {op} ({})   ; {}",
        outputs.join(", "),
        inputs.join(", "),
        node.origin.join(" ")
    )
}
