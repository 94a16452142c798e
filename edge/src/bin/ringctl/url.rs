//! `ringctl url`: addresses to hand out. With a key at hand it needs no server; without one it asks the
//! server, which has the keys of its domains and keeps them.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use edge::access::Role;
use edge::access::providers::usersig::map_key::{PLAY_ONLY, PUBLISH_AND_PLAY};
use edge::access::providers::usersig::ticket;
use edge::access::providers::{aliyun, jwt, oss};
use edge::access::secret::{SecretText, read_file};
use edge::address::{Order, Ports, Signer, generate, parse_span};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::client::{Client, escape};
use crate::{Cli, print};

/// Environment variable that may hold the key.
const KEY_VARIABLE: &str = "RINGCAST_URL_KEY";

#[derive(Copy, Clone, PartialEq, Eq, ValueEnum)]
enum Purpose {
    Publish,
    Play,
}

impl Purpose {
    fn role(self) -> Role {
        match self {
            Self::Publish => Role::Publish,
            Self::Play => Role::Play,
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq, ValueEnum)]
enum Scheme {
    /// Without signature
    Open,
    /// txSecret and txTime
    Txsecret,
    /// auth_key, type A
    Aliyun,
    /// Signed LiveChannel address
    Oss,
    /// JSON web token
    Jwt,
    /// UserSig, with a privateMapKey if --room is given
    Usersig,
}

/// Where a key is.
#[derive(Args)]
pub(crate) struct KeyArguments {
    /// The key; others can see it in the list of processes, so prefer --key-file or RINGCAST_URL_KEY
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// File that holds the key: a text, or a private key in PEM
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
}

impl KeyArguments {
    /// The key from the option, the file or the environment; `None` if there is none.
    pub(crate) fn read(&self) -> Result<Option<SecretText>, String> {
        let text = match (&self.key, &self.key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(file)) => read_key_file(file)?,
            (None, None) => match std::env::var(KEY_VARIABLE) {
                Ok(key) => key,
                Err(_) => return Ok(None),
            },
        };
        SecretText::new(&text).map(Some).map_err(str::to_owned)
    }

    /// The key, which must be there.
    pub(crate) fn required(&self) -> Result<SecretText, String> {
        let missing = || format!("a key is needed: --key-file FILE, --key TEXT or {KEY_VARIABLE}");
        self.read()?.ok_or_else(missing)
    }
}

fn read_key_file(file: &Path) -> Result<String, String> {
    read_file(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Make addresses to publish to or play from, signed.
///
/// With --scheme the addresses are made here and no server is asked. Without it the server signs with the
/// keys of its domain.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    ringctl url publish --domain push.example.com --app live --stream room1\n  \
    ringctl url play --scheme txsecret --key-file play.key --domain play.example.com --app live \
    --stream room1 --valid 2h")]
pub(crate) struct Arguments {
    /// What the addresses are for
    #[arg(value_enum)]
    purpose: Purpose,
    /// Host name in the addresses
    #[arg(long)]
    domain: String,
    /// App
    #[arg(long, default_value = "live")]
    app: String,
    /// Stream name
    #[arg(long)]
    stream: String,
    /// How long they are valid, for example 30m, 12h or 1d12h [default: 12h; aliyun: 30m]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    valid: Option<u64>,
    /// Sign here by this scheme instead of asking the server
    #[arg(long, value_enum)]
    scheme: Option<Scheme>,
    #[command(flatten)]
    key: KeyArguments,
    /// oss: id of the access key
    #[arg(long, value_name = "ID")]
    access_key_id: Option<String>,
    /// oss: bucket, where neither domain nor app names it
    #[arg(long)]
    bucket: Option<String>,
    /// jwt: parameter that holds the token
    #[arg(long, default_value = "token")]
    token_param: String,
    /// usersig: application
    #[arg(long, value_name = "NUMBER")]
    sdk_app_id: Option<u32>,
    /// usersig: the user the address is for
    #[arg(long)]
    user: Option<String>,
    /// usersig: room of a privateMapKey
    #[arg(long)]
    room: Option<String>,
    /// aliyun: what the domain adds to the time in the address; 0 if that time is the end
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    domain_validity: Option<u64>,
    /// Port of RTMP
    #[arg(long, value_name = "PORT", default_value_t = 1935)]
    rtmp_port: u16,
    /// Port of RTMPS
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    rtmps_port: u16,
    /// Port of HTTP
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    http_port: u16,
}

pub(crate) fn run(cli: &Cli, arguments: &Arguments) -> Result<(), String> {
    let answer = match arguments.scheme {
        Some(scheme) => offline(arguments, scheme)?,
        None if arguments.key.read()?.is_some() => {
            return Err("a key needs --scheme, to say what to do with it".to_owned());
        }
        None => online(cli, arguments)?,
    };
    if cli.json { print(&format!("{answer}\n")) } else { print(&render(&answer)) }
}

/// Now, in Unix seconds.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn offline(arguments: &Arguments, scheme: Scheme) -> Result<Value, String> {
    let role = arguments.purpose.role();
    let order = Order {
        role,
        domain: &arguments.domain,
        app: &arguments.app,
        stream: &arguments.stream,
        ports: Ports {
            rtmp: Some(arguments.rtmp_port),
            rtmps: Some(arguments.rtmps_port),
            http: Some(arguments.http_port),
        },
        unix_s: unix_s(),
        valid_s: arguments.valid,
    };
    let signer = signer(arguments, scheme)?;
    let addresses = generate(&signer, &order).map_err(|error| error.to_string())?;
    let (domain, scheme) = (&arguments.domain, signer.scheme());
    Ok(json!({"domain": domain, "role": role, "scheme": scheme, "addresses": addresses}))
}

fn signer(arguments: &Arguments, scheme: Scheme) -> Result<Signer, String> {
    let key = || arguments.key.required();
    let needs = |what: &str| format!("this scheme needs {what}");
    Ok(match scheme {
        Scheme::Open => Signer::Open,
        Scheme::Txsecret => Signer::TxSecret { key: key()?, validity_s: 0 },
        Scheme::Aliyun => {
            let validity_s = arguments.domain_validity.unwrap_or(aliyun::VALIDITY_S_DEFAULT);
            Signer::Aliyun { key: key()?, validity_s }
        }
        Scheme::Oss => {
            let id = arguments.access_key_id.as_deref();
            let id = id.ok_or_else(|| needs("--access-key-id"))?.into();
            let key = oss::AccessKey { id, secret: key()? };
            Signer::Oss { key, bucket: arguments.bucket.as_deref().map(Box::from) }
        }
        Scheme::Jwt => {
            let key = jwt::SigningKey::new(&key()?).map_err(|error| error.to_string())?;
            let param = arguments.token_param.as_str().into();
            Signer::Jwt { key, param, issuer: None, audience: None }
        }
        Scheme::Usersig => {
            let rights = match arguments.purpose {
                Purpose::Publish => PUBLISH_AND_PLAY,
                Purpose::Play => PLAY_ONLY,
            };
            Signer::UserSig {
                key: ticket::SigningKey::new(&key()?)?,
                sdk_app_id: arguments.sdk_app_id.ok_or_else(|| needs("--sdk-app-id"))?,
                user: arguments.user.as_deref().ok_or_else(|| needs("--user"))?.into(),
                map_key: arguments.room.as_deref().map(|room| (room.into(), rights)),
            }
        }
    })
}

fn online(cli: &Cli, arguments: &Arguments) -> Result<Value, String> {
    let mut path = format!("/api/v1/addresses?role={}", arguments.purpose.role().text());
    let valid_s = arguments.valid.map(|valid_s| valid_s.to_string());
    for (name, value) in [
        ("domain", Some(&arguments.domain)),
        ("app", Some(&arguments.app)),
        ("stream", Some(&arguments.stream)),
        ("valid_s", valid_s.as_ref()),
        ("user", arguments.user.as_ref()),
    ] {
        if let Some(value) = value {
            path += &format!("&{name}={}", escape(value, false));
        }
    }
    Client::new(cli)?.ask(&Method::GET, &path)
}

fn render(answer: &Value) -> String {
    let addresses = &answer["addresses"];
    let mut out = String::new();
    for (name, title) in
        [("rtmp", "RTMP"), ("rtmps", "RTMPS"), ("flv", "FLV"), ("hls", "HLS"), ("mp4", "MP4")]
    {
        if let Some(address) = addresses[name].as_str() {
            out += &format!("{title:<6} {address}\n");
        }
    }
    match addresses["expires"].as_str() {
        Some(expires) => out += &format!("valid until {expires}\n"),
        None => out += "valid without end\n",
    }
    out
}
