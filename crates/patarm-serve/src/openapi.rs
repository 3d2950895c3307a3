//! The description of all routes, made from their types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::exchange::Route;
use crate::fault::FaultCode;

/// One route of the description.
pub(crate) struct Operation {
    path: &'static str,
    method: &'static str,
    value: Value,
}

impl Operation {
    /// A route without a body.
    pub(crate) fn get(path: &'static str, about: &'static str) -> Self {
        let value = json!({ "summary": about, "responses": { "200": { "description": "OK" } } });
        Self { path, method: "get", value }
    }
}

/// A description under construction.
pub(crate) struct Description {
    generator: SchemaGenerator,
    operations: Vec<Operation>,
}

impl Default for Description {
    fn default() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self { generator: settings.into_generator(), operations: Vec::new() }
    }
}

impl Description {
    fn schema<T: JsonSchema>(&mut self) -> Value {
        self.generator.subschema_for::<T>().to_value()
    }

    /// Adds a route that takes a body.
    pub(crate) fn post<R: Route>(&mut self) {
        let (request, reply) = (self.schema::<R::Request>(), self.schema::<R::Reply>());
        let value = json!({
            "summary": R::ABOUT,
            "tags": [R::DIALECT.name()],
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": request } },
            },
            "responses": responses(&reply),
        });
        self.operations.push(Operation { path: R::PATH, method: "post", value });
    }

    pub(crate) fn add(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// The whole document.
    pub(crate) fn finish(mut self) -> Value {
        let mut paths = Map::new();
        for Operation { path, method, value } in self.operations {
            let entry = paths.entry(path).or_insert_with(|| json!({}));
            entry[method] = value;
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "patarm",
                "description": "A reward server.",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "paths": paths,
            "components": {
                "schemas": self.generator.take_definitions(true),
                "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            },
            "security": [{}, { "key": [] }],
        })
    }
}

/// The answer of a route and everything it may refuse with.
fn responses(reply: &Value) -> Value {
    let mut responses = Map::new();
    let content = json!({ "application/json": { "schema": reply } });
    responses.insert("200".into(), json!({ "description": "OK", "content": content }));
    for (_, status, name, meaning) in FaultCode::table() {
        let line = format!("`{name}`: {meaning}");
        match responses.get_mut(&status.to_string()) {
            Some(known) => {
                let before = known["description"].as_str().unwrap_or_default();
                known["description"] = json!(format!("{before} {line}"));
            }
            None => {
                responses.insert(status.to_string(), json!({ "description": line }));
            }
        }
    }
    Value::Object(responses)
}
