//! `ringctl sign`: signatures for whoever writes a control client or a callback receiver, to compare with
//! their own. Works without a server. The text under an HMAC is shown too; that under an MD5 holds the key
//! and is not.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use edge::address::parse_span;
use edge::signature::{self, EVENT_VALID_S, OssRequest, TrtcAccount, TrtcTrack};
use serde_json::{Value, json};

use crate::render::render_fields;
use crate::url::{KeyArguments, unix_s};
use crate::{Cli, print};

/// What is signed.
#[derive(Subcommand)]
pub(crate) enum Scheme {
    /// sign of a request to /common_access
    TencentApi(Timed),
    /// sign of an event
    TencentEvent(Timed),
    /// ALI-LIVE-SIGNATURE of a push callback
    AliyunCallback {
        /// Push domain
        #[arg(long)]
        domain: String,
        /// ALI-LIVE-TIMESTAMP in Unix seconds [default: now]
        #[arg(long, value_name = "UNIX")]
        timestamp: Option<u64>,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Signature of a request to the live API
    AliyunRpc {
        /// GET or POST
        method: String,
        /// All parameters, not escaped
        #[arg(value_name = "NAME=VALUE", value_parser = parse_param, required = true)]
        params: Vec<(String, String)>,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Authorization of a request to LiveChannels and their files, version 1
    OssHeader {
        #[command(flatten)]
        object: Object,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Query of a signed address of a file, version 1
    OssUrl {
        #[command(flatten)]
        object: Object,
        /// End of validity in Unix seconds
        #[arg(long, value_name = "UNIX", conflicts_with = "valid")]
        expires: Option<u64>,
        /// How long it is valid, for example 30m
        #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "1h")]
        valid: u64,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Stream id of a user in a room; needs no key
    #[command(group = ArgGroup::new("account").required(true))]
    TrtcStream {
        /// BIZID of the account: the id holds a hash
        #[arg(long, value_name = "ID", group = "account")]
        bizid: Option<String>,
        /// Application: the id holds the names
        #[arg(long, value_name = "NUMBER", group = "account")]
        sdk_app_id: Option<u32>,
        /// Room
        #[arg(long)]
        room: String,
        /// User
        #[arg(long)]
        user: String,
        /// Camera or shared screen
        #[arg(long, value_enum, default_value = "main")]
        track: Track,
    },
}

/// A time and the key.
#[derive(Args)]
pub(crate) struct Timed {
    /// t in Unix seconds [default: 10 minutes from now]
    #[arg(long, value_name = "UNIX")]
    t: Option<u64>,
    #[command(flatten)]
    key: KeyArguments,
}

/// A request to the object storage.
#[derive(Args)]
pub(crate) struct Object {
    /// GET, PUT, POST, DELETE or HEAD
    method: String,
    /// Path and query as they are sent, for example "/bucket/channel?live="
    target: String,
    /// Bucket, where the host names it and the path does not
    #[arg(long)]
    bucket: Option<String>,
    /// A header that is sent, for example "Date: Thu, 25 Aug 2016 07:13:26 GMT"; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Id of the access key
    #[arg(long, value_name = "ID")]
    access_key_id: String,
}

#[derive(Copy, Clone, ValueEnum)]
pub(crate) enum Track {
    Main,
    Aux,
}

fn parse_param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Object {
    /// Calls `sign` with the request.
    fn with<R>(&self, sign: impl FnOnce(&OssRequest<'_>) -> R) -> R {
        sign(&OssRequest {
            method: &self.method,
            target: &self.target,
            bucket: self.bucket.as_deref(),
            headers: &borrowed(&self.headers),
        })
    }
}

pub(crate) fn run(cli: &Cli, scheme: &Scheme) -> Result<(), String> {
    let mut answer = answer(scheme)?;
    if cli.json {
        return print(&format!("{answer}\n"));
    }
    if let Some(Value::String(text)) = answer.get_mut("string_to_sign") {
        // One line for each field.
        *text = text.replace('\n', "\\n");
    }
    print(&render_fields(&answer))
}

fn answer(scheme: &Scheme) -> Result<Value, String> {
    let refused = |error: signature::SignatureError| error.to_string();
    Ok(match scheme {
        Scheme::TencentApi(timed) => {
            let t = timed.t();
            json!({"t": t, "sign": signature::tencent_api(&timed.key.required()?, t)})
        }
        Scheme::TencentEvent(timed) => {
            let t = timed.t();
            json!({"t": t, "sign": signature::tencent_event(&timed.key.required()?, t)})
        }
        Scheme::AliyunCallback { domain, timestamp, key } => {
            let timestamp = timestamp.unwrap_or_else(unix_s);
            let signature = signature::aliyun_push_callback(&key.required()?, domain, timestamp);
            json!({"timestamp": timestamp, "signature": signature})
        }
        Scheme::AliyunRpc { method, params, key } => {
            let signed = signature::aliyun_rpc(&key.required()?, method, &borrowed(params));
            let signed = signed.map_err(refused)?;
            json!({"signature": signed.signature, "string_to_sign": signed.string_to_sign})
        }
        Scheme::OssHeader { object, key } => {
            let key = key.required()?;
            let signed = object.with(|request| signature::oss_header(&key, request));
            let signed = signed.map_err(refused)?;
            let authorization = signed.oss_authorization(&object.access_key_id);
            json!({"authorization": authorization, "string_to_sign": signed.string_to_sign})
        }
        Scheme::OssUrl { object, expires, valid, key } => {
            let expires = expires.unwrap_or_else(|| unix_s().saturating_add(*valid));
            let key = key.required()?;
            let signed = object.with(|request| signature::oss_url(&key, request, expires));
            let signed = signed.map_err(refused)?;
            json!({
                "expires_unix_s": expires,
                "query": signed.oss_query(&object.access_key_id, expires),
                "signature": signed.signature,
                "string_to_sign": signed.string_to_sign,
            })
        }
        Scheme::TrtcStream { bizid, sdk_app_id, room, user, track } => {
            let account = match (bizid, sdk_app_id) {
                (Some(bizid), _) => TrtcAccount::Bizid(bizid),
                (None, Some(id)) => TrtcAccount::SdkAppId(*id),
                (None, None) => return Err("--bizid or --sdk-app-id is needed".to_owned()),
            };
            let track = match track {
                Track::Main => TrtcTrack::Main,
                Track::Aux => TrtcTrack::Aux,
            };
            json!({"stream_id": signature::trtc_stream_id(account, room, user, track)})
        }
    })
}

impl Timed {
    fn t(&self) -> u64 {
        self.t.unwrap_or_else(|| unix_s().saturating_add(EVENT_VALID_S))
    }
}
