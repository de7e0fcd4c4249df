//! Remote write.

use super::*;

/// A remote write request of one sample of `written` at one second.
fn write_request() -> Vec<u8> {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }
    let label = [field(1, b"__name__"), field(2, b"written")].concat();
    // value = 1 (a double), timestamp = 1000 (a varint of two bytes)
    let sample = [&[0x09][..], &1.0_f64.to_le_bytes(), &[0x10, 0xe8, 0x07]].concat();
    let series = [field(1, &label), field(2, &sample)].concat();
    snap::raw::Encoder::new().compress_vec(&field(1, &series)).unwrap()
}

#[tokio::test]
async fn samples_are_taken_in_under_every_alias_and_for_their_tenant() {
    let app = TestApp::start().await;
    let paths = ["/write", "/push", "/receive"];
    let prefixes = ["/api/v1", "/prometheus/api/v1"];
    for (i, (prefix, path)) in
        prefixes.iter().flat_map(|prefix| paths.iter().map(move |path| (prefix, path))).enumerate()
    {
        let tenant = format!("tenant-{i}");
        let request = Request::post(format!("{prefix}{path}"))
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .header("x-scope-orgid", &tenant)
            .body(Body::from(write_request()))
            .unwrap();
        let reply = app.send(request).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (204, ""), "{prefix}{path}");
        let names =
            app.call("GET", "/api/v1/label/__name__/values", &[("x-scope-orgid", tenant.as_str())], "").await;
        names.is_success(&json!(["written"]));
    }
    app.get("/api/v1/label/__name__/values").await.is_success(&json!(["down", "up"]));
}

#[tokio::test]
async fn a_write_that_is_not_one_is_refused() {
    let app = TestApp::start().await;
    let send = async |content_type: &str, body: &str| {
        app.call("POST", "/api/v1/write", &[("content-type", content_type)], body).await.status.as_u16()
    };
    assert_eq!(send("application/json", "{}").await, 415);
    assert_eq!(send("application/x-protobuf", "nonsense").await, 400);
    let unnamed = app
        .call(
            "POST",
            "/api/v1/write",
            &[("x-scope-orgid", "a b"), ("content-type", "application/x-protobuf")],
            "",
        )
        .await;
    assert_eq!(unnamed.status, 400);
}
