//! Operators that draw random numbers: what a seed promises, types and shapes, and statistics.

mod build;

use build::*;
use lapidary::{Compiled, DType, Model, Options, Tensor};
use lapidary_onnx::proto::AttributeProto;

fn generator(op: &str, attributes: Vec<AttributeProto>, dtype: i32) -> Model {
    let output = value("y", dtype, None);
    let node = node(op, &[], &["y"], attributes);
    model(22, vec![node], vec![], vec![output])
}

fn compiled(model: &Model) -> Compiled {
    model.compile(&Options::default()).expect("it compiles")
}

/// One run in a fresh context.
fn once(compiled: &Compiled, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut context = compiled.context().expect("a context");
    context.run_tensors(inputs).expect("it runs")
}

fn f32s(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.as_slice::<f32>().expect("f32");
    values.iter().map(|v| f64::from(*v)).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let middle = mean(values);
    values.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / values.len() as f64
}

#[track_caller]
fn near(found: f64, expected: f64, most: f64) {
    assert!(
        (found - expected).abs() <= most,
        "{found}, expected {expected} within {most}"
    );
}

#[test]
fn the_generator_is_philox_4x32_10() {
    // The answer for key 0 and counter 0 that its authors publish, as two numbers of 53 bits.
    let words: [u64; 4] = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    let number = |low: u64, high: u64| ((high << 32 | low) >> 11) as f64 / (1u64 << 53) as f64;
    let expected = [number(words[0], words[1]), number(words[2], words[3])];
    let attributes = vec![
        ints("shape", &[2]),
        int("dtype", F64.into()),
        float("seed", 0.0),
    ];
    let found = once(&compiled(&generator("RandomUniform", attributes, F64)), &[]);
    assert_eq!(found[0].as_slice::<f64>().unwrap(), expected);
}

#[test]
fn a_seed_gives_the_same_numbers_in_every_fresh_context_and_others_in_each_run() {
    let attributes = vec![ints("shape", &[3, 5]), float("seed", 7.5)];
    let compiled = compiled(&generator("RandomNormal", attributes, F32));
    let first = once(&compiled, &[]);
    assert_eq!(first, once(&compiled, &[]));
    let mut context = compiled.context().unwrap();
    assert_eq!(context.run_tensors(&[]).unwrap(), first);
    assert_ne!(context.run_tensors(&[]).unwrap(), first);
}

#[test]
fn without_a_seed_every_context_and_node_has_its_own_numbers() {
    let twice = ["y", "z"].map(|name| {
        let attributes = vec![ints("shape", &[64])];
        node("RandomUniform", &[], &[name], attributes)
    });
    let outputs = vec![value("y", F32, None), value("z", F32, None)];
    let compiled = compiled(&model(22, twice.to_vec(), vec![], outputs));
    let first = once(&compiled, &[]);
    assert_ne!(first[0], first[1]);
    assert_ne!(once(&compiled, &[]), first);
}

#[test]
fn a_library_draws_the_same_numbers_as_code_in_memory() {
    let attributes = vec![ints("shape", &[1000]), float("seed", 3.0)];
    let model = generator("RandomNormal", attributes, F32);
    let folder = std::env::temp_dir().join(format!("lapidary-random-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("librandom.so");
    model
        .compile_library(&path, None, &Options::default())
        .unwrap();
    let library = Compiled::open_library(&path, &Options::default()).unwrap();
    assert_eq!(once(&library, &[]), once(&compiled(&model), &[]));
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn uniform_numbers_fill_their_range_evenly() {
    let attributes = vec![
        ints("shape", &[100_000]),
        float("low", -1.0),
        float("high", 3.0),
        float("seed", 1.0),
    ];
    let values = f32s(&once(&compiled(&generator("RandomUniform", attributes, F32)), &[])[0]);
    assert!(values.iter().all(|v| (-1.0..3.0).contains(v)));
    near(mean(&values), 1.0, 0.02);
    near(variance(&values), 16.0 / 12.0, 0.02);
    let below = values.iter().filter(|v| **v < 0.0).count();
    near(below as f64 / 1e5, 0.25, 0.01);
    // Neighbours do not depend on each other.
    let product: Vec<f64> = values
        .windows(2)
        .map(|w| (w[0] - 1.0) * (w[1] - 1.0))
        .collect();
    near(mean(&product), 0.0, 0.02);
}

#[test]
fn normal_numbers_have_the_mean_and_deviation_that_are_asked_for() {
    let attributes = vec![
        ints("shape", &[100, 1001]),
        float("mean", 2.0),
        float("scale", 3.0),
        float("seed", 2.0),
    ];
    let found = once(&compiled(&generator("RandomNormal", attributes, F32)), &[]);
    assert_eq!(found[0].shape(), [100, 1001]);
    let values = f32s(&found[0]);
    near(mean(&values), 2.0, 0.05);
    near(variance(&values), 9.0, 0.2);
    let within = values.iter().filter(|v| (**v - 2.0).abs() < 3.0).count();
    near(within as f64 / values.len() as f64, 0.6827, 0.01);
}

#[test]
fn numbers_like_an_input_have_its_shape_whatever_it_is_and_the_type_that_is_stated() {
    for (dtype, expected) in [(F32, DType::F32), (F16, DType::F16), (BF16, DType::BF16)] {
        for op in ["RandomUniformLike", "RandomNormalLike"] {
            let attributes = vec![int("dtype", dtype.into())];
            let node = node(op, &["x"], &["y"], attributes);
            let output = value("y", dtype, None);
            for dims in [Some(&["n", "m"][..]), None] {
                let input = value("x", I64, dims);
                let compiled = compiled(&model(
                    22,
                    vec![node.clone()],
                    vec![input],
                    vec![output.clone()],
                ));
                for shape in [[2, 3], [5, 1], [0, 4]] {
                    let x = Tensor::zeros(DType::I64, &shape).unwrap();
                    let found = once(&compiled, &[x]);
                    assert_eq!((found[0].dtype(), found[0].shape()), (expected, &shape[..]));
                }
            }
        }
    }
}

#[test]
fn half_floats_stay_below_the_upper_end() {
    for (low, high) in [(0.0, 1.0), (1.0, 2.0), (-3.0, 5.0)] {
        let attributes = vec![
            ints("shape", &[50_000]),
            int("dtype", F16.into()),
            float("seed", 4.0),
            float("low", low),
            float("high", high),
        ];
        let found = once(&compiled(&generator("RandomUniform", attributes, F16)), &[]);
        let values = found[0].as_slice::<half::f16>().unwrap();
        assert!(values.iter().all(|v| (low..high).contains(&v.to_f32())));
    }
}

#[test]
fn integers_are_no_random_numbers() {
    let node = node("RandomUniformLike", &["x"], &["y"], vec![]);
    let input = value("x", I64, Some(&["n"]));
    let model = model(22, vec![node], vec![input], vec![value("y", I64, None)]);
    let error = model
        .compile(&Options::default())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("int64"), "{error}");
}

#[test]
fn bernoulli_hits_as_often_as_the_element_says() {
    let node = node(
        "Bernoulli",
        &["x"],
        &["y"],
        vec![float("seed", 5.0), int("dtype", I32.into())],
    );
    let input = value("x", F32, Some(&["n", "3"]));
    let model = model(22, vec![node], vec![input], vec![value("y", I32, None)]);
    let chances = [0.0f32, 0.3, 1.0];
    let x: Vec<f32> = chances.iter().copied().cycle().take(30_000).collect();
    let found = once(
        &compiled(&model),
        &[Tensor::from_slice(&[10_000, 3], &x).unwrap()],
    );
    let y = found[0].as_slice::<i32>().unwrap();
    for (c, chance) in chances.iter().enumerate() {
        let hits = y.iter().skip(c).step_by(3).sum::<i32>();
        near(
            f64::from(hits) / 10_000.0,
            (*chance).into(),
            if c == 1 { 0.02 } else { 0.0 },
        );
    }
}

#[test]
fn classes_are_drawn_as_often_as_their_weights_say() {
    let attributes = vec![
        int("sample_size", 20_000),
        float("seed", 6.0),
        int("dtype", I64.into()),
    ];
    let node = node("Multinomial", &["x"], &["y"], attributes);
    let input = value("x", F32, Some(&["batch", "classes"]));
    let model = model(22, vec![node], vec![input], vec![value("y", I64, None)]);
    let compiled = compiled(&model);
    let weights = [1.0f32, 0.0, 2.0, 1.0, 4.0, 4.0, 0.0, 0.0];
    let logs: Vec<f32> = weights.iter().map(|w| w.ln()).collect();
    let found = once(&compiled, &[Tensor::from_slice(&[2, 4], &logs).unwrap()]);
    assert_eq!(found[0].shape(), [2, 20_000]);
    let y = found[0].as_slice::<i64>().unwrap();
    for (row, weights) in y.chunks(20_000).zip(weights.chunks(4)) {
        let total: f32 = weights.iter().sum();
        for (class, weight) in weights.iter().enumerate() {
            let drawn = row.iter().filter(|c| **c == class as i64).count();
            let expected = f64::from(weight / total);
            near(
                drawn as f64 / 20_000.0,
                expected,
                if *weight > 0.0 { 0.015 } else { 0.0 },
            );
        }
    }
    let none = Tensor::from_slice(&[1, 2], &[f32::NEG_INFINITY; 2]).unwrap();
    let error = compiled
        .context()
        .unwrap()
        .run_tensors(&[none])
        .unwrap_err();
    assert!(error.to_string().contains("row 0"), "{error}");
}

/// Inputs x, ratio, training; outputs y, mask.
fn dropout() -> Model {
    let node = node(
        "Dropout",
        &["x", "ratio", "training"],
        &["y", "mask"],
        vec![int("seed", 9)],
    );
    let inputs = vec![
        value("x", F32, Some(&["n"])),
        value("ratio", F32, Some(&[])),
        value("training", BOOL, Some(&[])),
    ];
    let outputs = vec![value("y", F32, None), value("mask", BOOL, None)];
    model(22, vec![node], inputs, outputs)
}

#[test]
fn dropout_in_training_drops_as_often_as_the_ratio_says_and_scales_the_rest() {
    let x: Vec<f32> = (1..=20_000).map(|i| i as f32).collect();
    let x = Tensor::from_slice(&[20_000], &x).unwrap();
    let compiled = compiled(&dropout());
    let run = |ratio: f32, training: bool| {
        let flag = Tensor::from_bytes(DType::Bool, &[], &[u8::from(training)]).unwrap();
        once(&compiled, &[x.clone(), Tensor::scalar(ratio), flag])
    };
    let found = run(0.2, true);
    let mask = found[1].bytes();
    let kept = mask.iter().filter(|m| **m != 0).count();
    near(kept as f64 / 20_000.0, 0.8, 0.02);
    for ((x, y), kept) in f32s(&x).iter().zip(f32s(&found[0])).zip(mask) {
        near(y, if *kept != 0 { x / 0.8 } else { 0.0 }, x * 1e-6);
    }
    // Without a ratio, or without training, nothing is dropped.
    for found in [run(0.0, true), run(0.5, false)] {
        assert_eq!(found[0], x);
        assert!(found[1].bytes().iter().all(|m| *m == 1));
    }
}
