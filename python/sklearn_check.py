#!/usr/bin/env python3
"""Train small scikit-learn models, export them with skl2onnx, and check that Lapidary predicts what scikit-learn does.

    cargo build --release
    python python/sklearn_check.py [--lapidary target/release/lapidary] [--out FOLDER] [--aot] [NAME ...]

Each model becomes a folder `{model.onnx, data.json, test_data_set_0/}` whose expected outputs are scikit-learn's own
(labels must be equal, probabilities within 1e-5, other numbers within 1e-5 of their magnitude), and goes through
`lapidary check`. Classifiers are converted twice: with the converter's defaults, which end in ZipMap (a sequence of maps
from label to probability), and without. At the end stands how many kinds of estimators that were. Without an active virtual environment one is made under `target/` with the pinned packages.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PINNED = ["numpy==2.4.6", "scipy==1.17.1", "scikit-learn==1.9.1", "onnx==1.23.2", "skl2onnx==1.20.0"]


def with_packages():
    """Goes on in an environment of its own, if none is active."""
    if sys.prefix != sys.base_prefix:
        return
    folder = os.path.join(ROOT, "target", "sklearn-venv")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PINNED], check=True)
    os.execv(python, [python, *sys.argv])


with_packages()

import warnings

warnings.filterwarnings("ignore")

import json

import numpy as np
import onnx
from onnx import numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import clone
from sklearn import (
    calibration, cluster, compose, datasets, decomposition, discriminant_analysis, ensemble, feature_extraction, feature_selection,
    gaussian_process, impute, isotonic, linear_model, mixture, multiclass, naive_bayes, neighbors, neural_network, pipeline,
    preprocessing, svm, tree,
)

make_attribute = onnx.helper.make_attribute


def attribute(key, value, *more, **named):
    """skl2onnx gives arrays and truth values, which this onnx takes no more."""
    if isinstance(value, (list, np.ndarray)):
        value = [int(v) if isinstance(v, (bool, np.bool_)) else v for v in np.asarray(value).tolist()]
    return make_attribute(key, value, *more, **named)


onnx.helper.make_attribute = attribute

SEED = 20261121
ROWS = 60  # of the test data


def split(x, y):
    x = np.asarray(x, np.float32)
    order = np.random.default_rng(SEED).permutation(len(x))
    return x[order[ROWS:]], y[order[ROWS:]], x[order[:ROWS]]


def iris():
    return split(*datasets.load_iris(return_X_y=True))


def wine():
    """Three classes whose features differ by orders of magnitude."""
    return split(*datasets.load_wine(return_X_y=True))


def named():
    """Classes that are strings."""
    x, y = datasets.load_wine(return_X_y=True)
    return split(x, np.array(["barolo", "grignolino", "barbera"])[y])


def cancer():
    return split(*datasets.load_breast_cancer(return_X_y=True))


def counts():
    """Whole numbers, as naive Bayes wants them."""
    x, y = datasets.load_digits(n_class=5, return_X_y=True)
    return split(np.round(x), y)


def diabetes():
    return split(*datasets.load_diabetes(return_X_y=True))


def gappy():
    """Values are missing."""
    x, y, test = wine()
    rng = np.random.default_rng(SEED)
    x[rng.random(x.shape) < 0.1] = np.nan
    test[rng.random(test.shape) < 0.1] = np.nan
    return x, y, test


def colours():
    """Categories as strings, one of them unknown in the test."""
    rng = np.random.default_rng(SEED)
    words = np.array([["red", "green", "blue", "gr\u00fcn"], ["small", "large", "huge", "tiny"]], dtype=object)
    x = np.stack([words[c][rng.integers(0, 4, 200)] for c in range(2)], axis=1)
    y = (x[:, 0] == "red") ^ (x[:, 1] == "huge")
    return x[ROWS:], y[ROWS:].astype(np.int64), x[:ROWS]


TEXTS = np.array([
    "The quick brown fox jumps over the lazy dog", "A man a plan a canal Panama", "To be or not to be that is the question",
    "All that glitters is not gold", "The lady doth protest too much methinks", "Brevity is the soul of wit",
    "Something is rotten in the state of Denmark", "The dog and the fox and the cat", "not not not a question of gold",
    "", "Panama Denmark Panama", "over and over the canal", "a soul a state a plan", "Of wit and gold THE FOX",
])


class Case:
    """A model to train and export; `kind` says what is expected of it."""

    def __init__(self, name, kind, model, data, **options):
        self.name, self.kind, self.model, self.data, self.options = name, kind, model, data, options

    def estimator(self):
        """The kind of estimator: that at the end of a pipeline."""
        last = self.model.steps[-1][1] if isinstance(self.model, pipeline.Pipeline) else self.model
        return type(last).__name__


def cases():
    """All cases; those with probabilities once more as the converter has them by default."""
    for case in plain_cases():
        yield case
        # Of f64 the converter makes a ZipMap that ONNX does not have.
        if hasattr(case.model, "predict_proba") and case.kind != "labels" and not case.options.get("double"):
            yield Case(case.name + "_zipmap", case.kind, clone(case.model), case.data, zipmap=True, **case.options)


def plain_cases():
    scaled = lambda m: pipeline.make_pipeline(preprocessing.StandardScaler(), m)
    trees = {"max_depth": 4, "random_state": SEED}
    c, r, t = "classifier", "regressor", "transformer"
    yield Case("logistic_regression", c, linear_model.LogisticRegression(max_iter=5000), iris)
    yield Case("logistic_regression_binary", c, scaled(linear_model.LogisticRegression()), cancer)
    yield Case("logistic_regression_strings", c, scaled(linear_model.LogisticRegression()), named)
    yield Case("sgd_classifier", c, scaled(linear_model.SGDClassifier(loss="log_loss", random_state=SEED)), iris)
    yield Case("ridge_classifier", "labels", scaled(linear_model.RidgeClassifier()), iris)
    yield Case("perceptron", "labels", scaled(linear_model.Perceptron(random_state=SEED)), iris)
    yield Case("linear_regression", r, linear_model.LinearRegression(), diabetes)
    yield Case("ridge", r, linear_model.Ridge(), diabetes)
    yield Case("lasso", r, linear_model.Lasso(alpha=0.1), diabetes)
    yield Case("elastic_net", r, linear_model.ElasticNet(alpha=0.01), diabetes)
    yield Case("bayesian_ridge", r, linear_model.BayesianRidge(), diabetes)
    yield Case("poisson_regressor", r, linear_model.PoissonRegressor(max_iter=1000), diabetes)
    yield Case("lda", c, discriminant_analysis.LinearDiscriminantAnalysis(), iris)
    yield Case("qda", c, discriminant_analysis.QuadraticDiscriminantAnalysis(), iris)
    yield Case("svc_rbf", c, scaled(svm.SVC(probability=True, random_state=SEED)), iris)
    yield Case("svc_rbf_raw", c, svm.SVC(probability=True, random_state=SEED), wine)
    yield Case("svc_poly", c, scaled(svm.SVC(kernel="poly", probability=True, random_state=SEED)), named)
    yield Case("svc_sigmoid_binary", c, scaled(svm.SVC(kernel="sigmoid", probability=True, random_state=SEED)), cancer)
    yield Case("svc_labels", "labels", scaled(svm.SVC()), wine)
    yield Case("nusvc", "labels", scaled(svm.NuSVC()), iris)
    yield Case("linear_svc", "labels", svm.LinearSVC(random_state=SEED), iris)
    yield Case("svr", r, scaled(svm.SVR()), diabetes)
    yield Case("nusvr", r, scaled(svm.NuSVR(kernel="poly")), diabetes)
    yield Case("linear_svr", r, scaled(svm.LinearSVR(random_state=SEED)), diabetes)
    yield Case("one_class_svm", "labels", scaled(svm.OneClassSVM()), iris)
    yield Case("gaussian_nb", c, naive_bayes.GaussianNB(), iris)
    yield Case("multinomial_nb", c, naive_bayes.MultinomialNB(), counts, double=True)
    yield Case("bernoulli_nb", c, naive_bayes.BernoulliNB(binarize=4.0), counts)
    yield Case("complement_nb", c, naive_bayes.ComplementNB(), counts, double=True)
    yield Case("knn_classifier", c, neighbors.KNeighborsClassifier(), iris, double=True)
    yield Case("knn_regressor", r, neighbors.KNeighborsRegressor(), diabetes)
    yield Case("decision_tree", c, tree.DecisionTreeClassifier(**trees), iris)
    yield Case("decision_tree_regressor", r, tree.DecisionTreeRegressor(**trees), diabetes)
    yield Case("random_forest", c, ensemble.RandomForestClassifier(20, **trees), named)
    yield Case("random_forest_regressor", r, ensemble.RandomForestRegressor(20, **trees), diabetes)
    yield Case("extra_trees", c, ensemble.ExtraTreesClassifier(20, **trees), wine)
    yield Case("extra_trees_regressor", r, ensemble.ExtraTreesRegressor(20, **trees), diabetes)
    yield Case("gradient_boosting", c, ensemble.GradientBoostingClassifier(n_estimators=20, **trees), iris)
    yield Case("gradient_boosting_binary", c, ensemble.GradientBoostingClassifier(n_estimators=20, **trees), cancer)
    yield Case("gradient_boosting_regressor", r, ensemble.GradientBoostingRegressor(n_estimators=20, **trees), diabetes)
    yield Case("hist_gradient_boosting", c, ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=SEED), cancer)
    yield Case("hist_gradient_boosting_regressor", r, ensemble.HistGradientBoostingRegressor(max_iter=20), diabetes)
    yield Case("ada_boost", c, ensemble.AdaBoostClassifier(n_estimators=10, random_state=SEED), iris)
    yield Case("ada_boost_regressor", r, ensemble.AdaBoostRegressor(n_estimators=10, random_state=SEED), diabetes)
    yield Case("bagging", c, ensemble.BaggingClassifier(tree.DecisionTreeClassifier(**trees), 10, random_state=SEED), iris)
    yield Case("bagging_regressor", r, ensemble.BaggingRegressor(tree.DecisionTreeRegressor(**trees), 10, random_state=SEED), diabetes)
    voters = [("a", linear_model.LogisticRegression(max_iter=5000)), ("b", naive_bayes.GaussianNB())]
    yield Case("voting", c, ensemble.VotingClassifier(voters, voting="soft", flatten_transform=False), iris)
    yield Case("stacking", c, ensemble.StackingClassifier(voters), iris)
    yield Case("isolation_forest", "labels", ensemble.IsolationForest(n_estimators=10, random_state=SEED), iris, opsets={"": 18, "ai.onnx.ml": 3})
    yield Case("mlp_classifier", c, scaled(neural_network.MLPClassifier((16,), max_iter=300, random_state=SEED)), iris)
    yield Case("mlp_regressor", r, scaled(neural_network.MLPRegressor(hidden_layer_sizes=(16,), max_iter=300, random_state=SEED)), diabetes)
    yield Case("one_vs_rest", c, multiclass.OneVsRestClassifier(linear_model.LogisticRegression()), iris)
    yield Case("calibrated", c, calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2), iris)
    yield Case("gaussian_process", r, gaussian_process.GaussianProcessRegressor(alpha=1.0, random_state=SEED), iris, double=True)
    yield Case("k_means", "cluster", cluster.KMeans(3, n_init=1, random_state=SEED), iris)
    yield Case("gaussian_mixture", c, mixture.GaussianMixture(3, random_state=SEED), iris)
    yield Case("standard_scaler", t, preprocessing.StandardScaler(), wine)
    yield Case("min_max_scaler", t, preprocessing.MinMaxScaler(clip=True), wine)
    yield Case("robust_scaler", t, preprocessing.RobustScaler(), wine)
    yield Case("max_abs_scaler", t, preprocessing.MaxAbsScaler(), wine)
    yield Case("normalizer", t, preprocessing.Normalizer(), wine)
    yield Case("binarizer", t, preprocessing.Binarizer(threshold=2.5), wine)
    yield Case("polynomial_features", t, preprocessing.PolynomialFeatures(), iris)
    yield Case("k_bins", t, preprocessing.KBinsDiscretizer(4, encode="ordinal", quantile_method="linear"), iris)
    yield Case("power_transformer", t, preprocessing.PowerTransformer(), iris)
    yield Case("pca", t, decomposition.PCA(2), iris)
    yield Case("truncated_svd", t, decomposition.TruncatedSVD(2, random_state=SEED), iris)
    yield Case("select_k_best", t, feature_selection.SelectKBest(k=2), iris)
    yield Case("simple_imputer", t, impute.SimpleImputer(), gappy)
    yield Case("simple_imputer_strings", "strings", impute.SimpleImputer(strategy="constant", missing_values="red", fill_value="rosso"), colours)
    yield Case("knn_imputer", t, impute.KNNImputer(n_neighbors=2), gappy)
    yield Case("one_hot_encoder", t, preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False), colours)
    yield Case("ordinal_encoder", t, preprocessing.OrdinalEncoder(), colours)
    yield Case("label_encoder", "label", preprocessing.LabelEncoder(), colours)
    yield Case("label_binarizer", "label", preprocessing.LabelBinarizer(), colours)
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore")
    numbers = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    columns = compose.ColumnTransformer([("words", encoder, ["colour", "size"]), ("numbers", numbers, ["weight", "price"])])
    yield Case("column_transformer", "frame", pipeline.make_pipeline(columns, linear_model.LogisticRegression()), colours)
    yield Case("count_vectorizer", "text", feature_extraction.text.CountVectorizer(), None)
    yield Case("tfidf_vectorizer", "text", feature_extraction.text.TfidfVectorizer(ngram_range=(1, 2), token_pattern="[a-zA-Z0-9_]+"), None)
    yield Case("count_vectorizer_chars", "text", feature_extraction.text.CountVectorizer(analyzer="char", ngram_range=(2, 3)), None)
    bayes = pipeline.make_pipeline(feature_extraction.text.TfidfVectorizer(), naive_bayes.MultinomialNB())
    yield Case("text_classifier", "text", bayes, None)


def built(case):
    """(model, inputs, outputs, tolerance) of a case; outputs in the order of the model's."""
    kind, model = case.kind, case.model
    if kind == "text":
        text = TEXTS.reshape(-1, 1)
        if hasattr(model, "predict"):
            model.fit(TEXTS, np.arange(len(TEXTS)) % 2)
            options = {} if case.options.get("zipmap") else {id(model): {"zipmap": False}}
            outputs = [model.predict(TEXTS), model.predict_proba(TEXTS).astype(np.float32)]
        else:
            options = {}
            outputs = [model.fit_transform(TEXTS).toarray().astype(np.float32)]
        onnx_model = to_onnx(model, initial_types=[("text", StringTensorType([None, 1]))], options=options)
        return onnx_model, [text.astype(object)], outputs
    x, y, test = case.data()
    if kind == "frame":
        import pandas

        rng = np.random.default_rng(SEED)
        names = ["colour", "size", "weight", "price"]

        def frame(words):
            numbers = rng.normal(10, 5, (len(words), 2)).astype(np.float32)
            numbers[rng.random(numbers.shape) < 0.1] = np.nan
            both = {n: words[:, i] for i, n in enumerate(names[:2])} | {n: numbers[:, i] for i, n in enumerate(names[2:])}
            return pandas.DataFrame(both)

        model.fit(frame(x), y)
        tested = frame(test)
        types = [(n, StringTensorType([None, 1]) if i < 2 else FloatTensorType([None, 1])) for i, n in enumerate(names)]
        options = {} if case.options.get("zipmap") else {id(model): {"zipmap": False}}
        onnx_model = to_onnx(model, initial_types=types, options=options)
        inputs = [tested[[n]].to_numpy() for n in names]
        inputs = [v if v.dtype == object else v.astype(np.float32) for v in inputs]
        return onnx_model, inputs, [model.predict(tested), model.predict_proba(tested).astype(np.float32)]
    if kind == "label":
        model.fit(x[:, 0])
        onnx_model = to_onnx(model, initial_types=[("x", StringTensorType([None]))])
        return onnx_model, [test[:, 0]], [model.transform(test[:, 0]).astype(np.int64)]
    words = x.dtype == object
    model.fit(x, y)
    options = {}
    if kind == "classifier" and hasattr(model, "classes_") and not case.options.get("zipmap"):
        options = {id(model): {"zipmap": False}}
    if case.options.get("double"):
        test = test.astype(np.float64)
        x = x.astype(np.float64)
    onnx_model = to_onnx(model, x[:1] if not words else None, initial_types=[("x", StringTensorType([None, x.shape[1]]))] if words else None, options=options, target_opset=case.options.get("opsets"))
    if kind == "transformer":
        outputs = [np.asarray(model.transform(test))]
    elif kind == "strings":
        outputs = [model.transform(test)]
    elif kind == "regressor":
        outputs = [model.predict(test).reshape(-1, 1)]
    elif kind == "cluster":
        outputs = [model.predict(test).astype(np.int64), model.transform(test)]
    elif kind == "labels":
        outputs = [model.predict(test)]
        if isinstance(model, ensemble.IsolationForest) or isinstance(getattr(model, "steps", [[0, 0]])[-1][1], svm.OneClassSVM):
            outputs[0] = outputs[0].astype(np.int64).reshape(-1, 1)
        # The second output, scores, has a form of its own for each estimator.
        del onnx_model.graph.output[1:]
    else:
        outputs = [model.predict(test), model.predict_proba(test)]
        if isinstance(model, mixture.GaussianMixture):
            outputs[0] = outputs[0].reshape(-1, 1)
        if isinstance(model, discriminant_analysis.QuadraticDiscriminantAnalysis):
            outputs[0] = outputs[0].reshape(1, -1)  # as the converter has it
    outputs = [o.astype(np.float32) if o.dtype.kind == "f" and not case.options.get("double") else o for o in outputs]
    return onnx_model, [test], outputs


def as_proto(value, info):
    """A tensor of the type that the model declares."""
    name, value = info.name, np.asarray(value)
    if value.dtype.kind == "f":
        value = value.astype(np.float32 if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT else np.float64)
    if value.dtype.kind in "US":
        value = value.astype(object)
    return numpy_helper.from_array(value, name)


def zipped(outputs, model, classes):
    """Probabilities as a sequence of maps from the classes."""
    from onnx import SequenceProto, MapProto, TensorProto

    sequence = SequenceProto(name=model.graph.output[1].name, elem_type=SequenceProto.MAP)
    for row in outputs[1]:
        if classes.dtype.kind in "US":
            entry = MapProto(key_type=TensorProto.STRING, string_keys=[c.encode() for c in classes])
        else:
            entry = MapProto(key_type=TensorProto.INT64, keys=map(int, classes))
        entry.values.elem_type = SequenceProto.TENSOR
        for v in row:
            entry.values.tensor_values.append(numpy_helper.from_array(np.float32(v)))
        sequence.map_values.append(entry)
    return sequence


def files(case):
    """Of a case, as bytes: the model, the inputs, the expected outputs; and the absolute tolerance."""
    model, inputs, outputs = built(case)
    ins = [as_proto(value, info) for value, info in zip(inputs, model.graph.input)]
    outs = [as_proto(value, info) for value, info in zip(outputs, model.graph.output)]
    if case.options.get("zipmap") and model.graph.output[1].type.HasField("sequence_type"):
        classes = getattr(case.model, "classes_", np.arange(np.asarray(outputs[1]).shape[1]))
        outs[1] = zipped(outputs, model, np.asarray(classes))
    floats = [value for value in map(np.asarray, outputs) if value.dtype.kind == "f"]
    scale = max([1.0] + [float(np.nanmax(np.abs(value))) for value in floats])
    text = lambda protos: [proto.SerializeToString(deterministic=True) for proto in protos]
    return model.SerializeToString(deterministic=True), text(ins), text(outs), 1e-5 * scale


def write(case, folder):
    model, inputs, outputs, atol = files(case)
    data = os.path.join(folder, "test_data_set_0")
    os.makedirs(data)
    names = [f"input_{i}.pb" for i in range(len(inputs))], [f"output_{i}.pb" for i in range(len(outputs))]
    for name, content in [*zip(names[0], inputs), *zip(names[1], outputs)]:
        with open(os.path.join(data, name), "wb") as file:
            file.write(content)
    with open(os.path.join(folder, "model.onnx"), "wb") as file:
        file.write(model)
    with open(os.path.join(folder, "data.json"), "w", encoding="utf-8") as file:
        json.dump({"rtol": 0.0, "atol": atol}, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lapidary", default=os.path.join(ROOT, "target", "release", "lapidary"))
    parser.add_argument("--out", help="where the models go (default: a temporary folder)")
    parser.add_argument("--aot", action="store_true", help="check compiled libraries")
    parser.add_argument("names", nargs="*", help="only models whose names contain one of these")
    args = parser.parse_args()
    out = args.out or tempfile.mkdtemp(prefix="sklearn-")
    failed = done = 0
    kinds = set()
    for case in cases():
        if args.names and not any(n in case.name for n in args.names):
            continue
        folder = os.path.join(out, case.name)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            write(case, folder)
        except Exception as error:  # an exporter's own limits
            print(f"{case.name:40} not exported: {type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}")
            failed += 1
            continue
        command = [args.lapidary, "check", folder] + (["--aot"] if args.aot else [])
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        done += 1
        if result.returncode:
            failed += 1
            print(f"{case.name:40} FAILED ({result.returncode})\n    " + (result.stdout + result.stderr).strip().replace("\n", "\n    "))
        else:
            kinds.add(case.estimator())
            print(f"{case.name:40} {case.estimator():32} ok")
    if not args.out:
        shutil.rmtree(out, ignore_errors=True)
    print(f"{done} models checked, {failed} failed; {len(kinds)} kinds of estimators")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
