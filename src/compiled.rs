//! A model that is ready to run: code in memory, or an open library.
//!
//! In: arrays by the names of inputs. Out: [`Output`]s in the model's order. A [`Compiled`] can be shared between
//! threads; each run takes a context that is idle, or makes one. A [`Context`] is for a caller that wants its own.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use lapidary_runtime::{
    Canceller, CompiledLibrary, CpuLevel, ModelCode, OutputView, OwnedValue, StateInfo, Tensor,
    TensorView, ThreadPool, ValueInfo,
};

use crate::{Error, Options, Output, Value};

/// Code, weights and idle contexts of one model.
pub struct Compiled {
    code: Arc<dyn ModelCode>,
    options: lapidary_runtime::Options,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    name: String,
    idle: Mutex<Vec<lapidary_runtime::Context>>,
}

impl Compiled {
    /// Opens a compiled library. It is code: open only what you trust.
    pub fn open_library(path: impl AsRef<Path>, options: &Options) -> Result<Compiled, Error> {
        let library = CompiledLibrary::open(path)?;
        Compiled::from_code(Arc::new(library), options)
    }

    /// Any code that follows the run-time ABI.
    pub fn from_code(code: Arc<dyn ModelCode>, options: &Options) -> Result<Compiled, Error> {
        let mut runtime = options.runtime();
        if options.threads != 1 {
            runtime.pool = Some(Arc::new(ThreadPool::for_model(
                code.clone(),
                options.threads,
            )?));
        }
        let first = lapidary_runtime::Context::new(code.clone(), &runtime)?;
        Ok(Compiled {
            code,
            options: runtime,
            inputs: first.inputs().to_vec(),
            outputs: first.outputs().to_vec(),
            name: first.name().to_string(),
            idle: Mutex::new(vec![first]),
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's inputs, in order.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// The model's outputs, in order.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// The code itself.
    pub fn code(&self) -> &Arc<dyn ModelCode> {
        &self.code
    }

    /// Runs the model. States are as in a new context at its begin.
    pub fn run<'n, 'v, V: Into<Value<'v>>>(
        &self,
        inputs: impl IntoIterator<Item = (&'n str, V)>,
    ) -> Result<Vec<Output>, Error> {
        let mut context = self.context()?;
        let outputs = context.run(inputs);
        // Whoever takes it next must find it new.
        context.reset_states()?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(context.inner);
        outputs
    }

    /// A context of one's own. Contexts share code, weights and threads, and may run at the same time.
    pub fn context(&self) -> Result<Context, Error> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let inner = match idle {
            Some(context) => context,
            None => lapidary_runtime::Context::new(self.code.clone(), &self.options)?,
        };
        Ok(Context { inner })
    }
}

/// A model with the memory of its runs. It keeps that memory from run to run.
pub struct Context {
    inner: lapidary_runtime::Context,
}

impl Context {
    /// The model's inputs, in order.
    pub fn inputs(&self) -> &[ValueInfo] {
        self.inner.inputs()
    }

    /// The model's outputs, in order.
    pub fn outputs(&self) -> &[ValueInfo] {
        self.inner.outputs()
    }

    /// Runs the model; every input is given once, by its name, in any order. One with a default may be left out.
    pub fn run<'n, 'v, V: Into<Value<'v>>>(
        &mut self,
        inputs: impl IntoIterator<Item = (&'n str, V)>,
    ) -> Result<Vec<Output>, Error> {
        let mut given: Vec<Option<Value<'v>>> = vec![None; self.inputs().len()];
        for (name, value) in inputs {
            let at = self.inputs().iter().position(|info| info.name == name);
            let slot = at.and_then(|at| given.get_mut(at)).ok_or_else(|| {
                Error::Usage(format!(
                    "the model has no input '{name}'{}",
                    self.names_hint()
                ))
            })?;
            if slot.replace(value.into()).is_some() {
                return Err(Error::Usage(format!("input '{name}' is given twice")));
            }
        }
        for (info, value) in self.inputs().iter().zip(&given) {
            if value.is_none() && !info.has_default {
                return Err(Error::Usage(format!(
                    "input '{}' is not given{}",
                    info.name,
                    self.names_hint()
                )));
            }
        }
        let lent = given
            .iter()
            .map(|value| value.as_ref().map(Value::lend).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let views: Vec<Option<TensorView<'_>>> = lent
            .iter()
            .map(|each| each.as_ref().map(|each| each.view()))
            .collect();
        let tensors = self.inner.run_given(&views)?;
        let names = self.outputs().iter().map(|info| info.name.clone());
        Ok(names
            .zip(tensors)
            .map(|(name, tensor)| Output { name, tensor })
            .collect())
    }

    /// Runs the model on tensors in the order of its inputs; one that is `None` has a default or is a state.
    pub fn run_some(&mut self, inputs: &[Option<TensorView<'_>>]) -> Result<Vec<Tensor>, Error> {
        Ok(self.inner.run_given(inputs)?)
    }

    /// Runs the model on tensors in the order of its inputs, defaults or not.
    pub fn run_tensors(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        Ok(self.inner.run(&views)?)
    }

    /// Runs the model on values of any kind in the order of its inputs, defaults or not.
    pub fn run_values(&mut self, inputs: &[OwnedValue]) -> Result<Vec<OwnedValue>, Error> {
        Ok(self.inner.run_values(inputs)?)
    }

    /// The same without a copy: the outputs lie in the context's memory until its next run.
    pub fn run_in_place(
        &mut self,
        inputs: &[TensorView<'_>],
    ) -> Result<Vec<OutputView<'_>>, Error> {
        Ok(self.inner.run_views(inputs)?)
    }

    /// The same; an input that is `None` has a default or is a state.
    pub fn run_some_in_place(
        &mut self,
        inputs: &[Option<TensorView<'_>>],
    ) -> Result<Vec<OutputView<'_>>, Error> {
        Ok(self.inner.run_given_views(inputs)?)
    }

    /// The variant of the code that the last run took ([`Options::variants`]): the dims that it is specialised for, or
    /// `general`. `None` before a run, and after one that failed.
    pub fn variant(&self) -> Option<String> {
        self.inner.variant()
    }

    /// The level of the code that runs, and that library kernels keep to: the highest that the code has and the machine,
    /// or [`Options::cpu`], allows.
    pub fn cpu_level(&self) -> CpuLevel {
        self.inner.cpu_level()
    }

    /// What the context keeps from run to run ([`Options::states`]). The inputs need not be given, and the outputs
    /// are not among those that a run gives.
    pub fn states(&self) -> &[StateInfo] {
        self.inner.states()
    }

    /// Makes all states as they were in a new context: without rows along the axis on which they grow, or the model's
    /// default.
    pub fn reset_states(&mut self) -> Result<(), Error> {
        Ok(self.inner.reset_states()?)
    }

    /// Gives the state of an input a value for the next run. The value is copied.
    pub fn set_state(&mut self, input: &str, value: &Tensor) -> Result<(), Error> {
        let at = self.inputs().iter().position(|info| info.name == input);
        let is_state = |at: &usize| self.states().iter().any(|state| state.input == *at);
        let at = at.filter(is_state).ok_or_else(|| self.no_state(input))?;
        Ok(self.inner.set_state(at, &value.view())?)
    }

    /// A copy of the state of an input, as the last run has left it; an error before the first.
    pub fn state(&self, input: &str) -> Result<Tensor, Error> {
        let of = |state: &StateInfo| {
            self.inputs()
                .get(state.input)
                .is_some_and(|info| info.name == input)
        };
        let at = self
            .states()
            .iter()
            .position(of)
            .ok_or_else(|| self.no_state(input))?;
        Ok(self.inner.state(at)?)
    }

    fn no_state(&self, input: &str) -> Error {
        let names = self
            .states()
            .iter()
            .filter_map(|state| self.inputs().get(state.input));
        let names: Vec<&str> = names.map(|info| info.name.as_str()).collect();
        Error::Usage(format!(
            "'{input}' is no state (hint: states are [{}])",
            names.join(", ")
        ))
    }

    /// Bytes that the context holds, without weights.
    pub fn memory_used(&self) -> u64 {
        self.inner.memory_used()
    }

    /// A handle that ends runs from another thread.
    pub fn canceller(&self) -> Canceller {
        self.inner.canceller()
    }

    fn names_hint(&self) -> String {
        let names: Vec<&str> = self
            .inputs()
            .iter()
            .map(|info| info.name.as_str())
            .collect();
        format!(" (hint: its inputs are {})", names.join(", "))
    }
}
