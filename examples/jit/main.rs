//! A model compiled into memory and run from several threads.
//!
//!     cargo run --release --example jit

use lapidary::{Model, Options, Value};
use ndarray::{Array4, Axis};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits");
    let model = Model::load(format!("{folder}/model.onnx"))?;
    for info in model.inputs() {
        println!("input {}: {} {:?}", info.name, info.dtype, info.dims);
    }

    // One compilation serves every batch size: the model leaves that dim free.
    let begin = std::time::Instant::now();
    let compiled = model.compile(&Options {
        threads: 1,
        ..Options::default()
    })?;
    println!("compiled in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);

    let seven = lapidary::files::read_tensor(format!("{folder}/seven.npy").as_ref(), "pixels")?;
    let seven = ndarray::ArrayView4::from_shape((1, 1, 8, 8), seven.as_slice::<f32>()?)?.to_owned();
    let outputs = compiled.run([("pixels", &seven)])?;
    println!("one picture: {}", best(&outputs[0])?[0]);

    // Any layout of an ndarray can be given; here a batch in which the picture stands upside down as well.
    let mut batch = Array4::zeros((3, 1, 8, 8));
    batch
        .index_axis_mut(Axis(0), 0)
        .assign(&seven.index_axis(Axis(0), 0));
    let mut flipped = seven.view();
    flipped.invert_axis(Axis(2));
    batch
        .index_axis_mut(Axis(0), 1)
        .assign(&flipped.index_axis(Axis(0), 0));
    let outputs = compiled.run([("pixels", Value::from(batch.view()))])?;
    println!("three pictures: {:?}", best(&outputs[0])?);

    // Contexts share code and weights and run at the same time.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut context = compiled.context()?;
                for _ in 0..1000 {
                    context.run([("pixels", &seven)])?;
                }
                println!("a thousand runs in a thread of its own");
                Ok::<(), lapidary::Error>(())
            });
        }
    });
    Ok(())
}

/// The most probable digit of each picture.
fn best(output: &lapidary::Output) -> Result<Vec<usize>, lapidary::Error> {
    let probabilities = output.view::<f32>()?;
    let rows = probabilities.axis_iter(Axis(0)).map(|row| {
        let indexed = row.iter().copied().enumerate();
        indexed
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |(digit, _)| digit)
    });
    Ok(rows.collect())
}
