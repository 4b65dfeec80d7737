//! Exports the right functions of a version of the contract that does not exist.
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic, clippy::restriction)]

wit_bindgen::generate!({ path: "wit", world: "controller" });

struct Program;

impl Guest for Program {
    fn describe() -> Result<Description, String> {
        Ok(Description { controllers: Vec::new(), permissions: Vec::new() })
    }

    fn reconcile(_: Request) -> Result<Outcome, Failure> {
        Ok(Outcome::Done)
    }
}

export!(Program);
