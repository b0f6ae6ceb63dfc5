//! nginx with a master and two workers.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Answer, Apart, Case};
use crate::load::{Clients, http};
use crate::process::{self, Server};

/// CVE-2026-42533: a capture that changed between measuring and copying overran
/// its buffer.
#[derive(Debug)]
pub(crate) struct Nginx;

const CLIENTS: usize = 6;

impl Case for Nginx {
    fn name(&self) -> &'static str {
        "nginx-42533"
    }

    fn label(&self) -> &'static str {
        "CVE-2026-42533"
    }

    fn image(&self) -> &'static str {
        "nginx"
    }

    fn changed(&self) -> &'static [&'static str] {
        &[
            "ngx_http_compile_complex_value",
            "ngx_http_complex_value",
            "ngx_http_fastcgi_create_request",
            "ngx_http_grpc_create_request",
            "ngx_http_index_handler",
            "ngx_http_log_body_bytes_sent",
            "ngx_http_log_bytes_sent",
            "ngx_http_log_copy_long",
            "ngx_http_log_copy_short",
            "ngx_http_log_handler",
            "ngx_http_log_iso8601",
            "ngx_http_log_json_variable",
            "ngx_http_log_msec",
            "ngx_http_log_pipe",
            "ngx_http_log_request_length",
            "ngx_http_log_request_time",
            "ngx_http_log_status",
            "ngx_http_log_time",
            "ngx_http_log_unescaped_variable",
            "ngx_http_log_variable",
            "ngx_http_proxy_create_request",
            "ngx_http_rewrite_value",
            "ngx_http_scgi_create_request",
            "ngx_http_script_copy_capture_code",
            "ngx_http_script_copy_code",
            "ngx_http_script_copy_var_code",
            "ngx_http_script_full_name_code",
            "ngx_http_script_regex_end_code",
            "ngx_http_script_run",
            "ngx_http_try_files_handler",
            "ngx_http_uwsgi_create_request",
            "ngx_stream_compile_complex_value",
            "ngx_stream_complex_value",
            "ngx_stream_log_copy_long",
            "ngx_stream_log_copy_short",
            "ngx_stream_log_handler",
            "ngx_stream_log_json_variable",
            "ngx_stream_log_unescaped_variable",
            "ngx_stream_log_variable",
            "ngx_stream_script_copy_capture_code",
            "ngx_stream_script_copy_code",
            "ngx_stream_script_copy_var_code",
            "ngx_stream_script_full_name_code",
            "ngx_stream_script_run",
        ]
    }

    /// Prototypes of functions that are called through pointers in the heap change,
    /// so an old caller must never meet a new step of a script. Nobody has to ask for that.
    fn apart(&self) -> Apart {
        Apart::Patch
    }

    fn start(&self, programs: &Path, run: &Path) -> Result<Server> {
        let port = process::free_port()?;
        let folder = run.display();
        std::fs::create_dir_all(run.join("html"))?;
        std::fs::write(run.join("html/index.html"), "hello\n")?;
        let config = run.join("nginx.conf");
        let user = if nix::unistd::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        std::fs::write(
            &config,
            format!(
                r#"daemon off; worker_processes 2; {user} pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format steps '$remote_addr "$request" $status $body_bytes_sent $http_user_agent';
  access_log {folder}/access.log steps;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  map $arg_q $m {{ "~^(.)" "X"; default "Y"; }}
  server {{
    listen 127.0.0.1:{port}; root {folder}/html;
    location ~ ^/g/(.*)$ {{ return 200 "$1-$m"; }}
    location ~ ^/s/(.*)$ {{ return 200 "$request_method $1 $scheme"; }}
    location /w/ {{ rewrite ^/w/([a-z]*)(.*)$ /index.html?x=$1 last; }}
    location / {{ add_header X-U "$uri-$scheme"; index index.html; try_files $uri $uri/ =404; }}
  }}
}}
"#
            ),
        )?;
        let mut command = Command::new(programs.join("nginx"));
        command.arg("-p").arg(run).arg("-c").arg(config);
        Server::start(&mut command, port, &run.join("log"))
    }

    fn load(&self, port: u16, clients: &mut Clients) -> Result<()> {
        clients.start_many(CLIENTS, move |client, _| {
            http::work(client, port, |round| {
                if round % 2 == 0 {
                    (format!("/w/abc{round}"), "hello\n".to_owned())
                } else {
                    (format!("/s/{round}"), format!("GET {round} http"))
                }
            })
        })
    }

    fn probe(&self, port: u16) -> Result<(Answer, String)> {
        // The map's own regular expression replaces the captures between the pass
        // that measures and the pass that copies: without the fix the answer has
        // the length of the first capture, ten bytes of it stale. (A `set` would not do:
        // its fix is a step that is added when the configuration is read.)
        let answer = http::Connection::open(port)?.get("/g/longcapture?q=ab", "")?;
        let seen = format!("{} bytes for a capture that changed", answer.body.len());
        let answer = if answer.body.len() == 3 {
            Answer::New
        } else {
            Answer::Old
        };
        Ok((answer, seen))
    }

    fn requests(&self) -> u64 {
        50_000
    }
}
