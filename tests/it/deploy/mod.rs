//! What is deployed, running: the gateways of the Kubernetes manifests, and how they are replaced.

mod fleet;
mod kept;
mod manifest;
mod rolling;
