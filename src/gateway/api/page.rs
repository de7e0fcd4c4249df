//! The page at `/`: what runs here and what to ask it first.

use axum::response::Html;

/// Shows it.
pub async fn home() -> Html<&'static str> {
    Html(include_str!("home.html"))
}
