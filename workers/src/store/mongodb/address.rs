//! The URL, as MongoDB writes it (`mongodb://user@host:27017/database?tls=true&tlsCAFile=ca.pem`), and the password
//! beside it.

use std::time::Duration;

use mongodb::{
    Client,
    options::{
        Acknowledgment, ClientOptions, ConnectionString, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
    },
};

use super::told;
use crate::store::{Access, StoreError};

/// The database, where the URL names none.
const DATABASE: &str = "fpesa";
/// Connections of one process, unless the URL says otherwise.
const CONNECTIONS: u32 = 8;
/// How long a connection may take to be made, and a server to be found, unless the URL says otherwise.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const FIND_WITHIN: Duration = Duration::from_secs(2);
/// How long a majority may take to have a batch in its journals.
const MAJORITY_WITHIN: Duration = Duration::from_secs(10);

/// Where the database is.
pub(super) struct Address {
    url: ConnectionString,
    password: Option<String>,
    pub database: String,
}

pub(super) fn read(access: &Access<'_>) -> Result<Address, StoreError> {
    let settings = |why: String| StoreError::Settings(format!("store: {why}"));
    let url = ConnectionString::parse(access.url).map_err(|error| {
        // The driver's sentence may quote what it took for a port, and that may be half a password.
        let cause = if access.url.contains('@') { String::new() } else { format!(" ({error})", error = error.kind) };
        settings(format!(
            "the URL can't be used{cause}: write it as in mongodb://user@host:27017/database, with what is special in \
             a name percent-encoded"
        ))
    })?;
    let user = url.credential.as_ref().and_then(|credential| credential.username.as_ref());
    if access.password.is_some() && user.is_none() {
        return Err(settings("there is a password, and the URL names no user: mongodb://user@host/database".into()));
    }
    let database = url.default_database.clone().unwrap_or_else(|| DATABASE.to_owned());
    Ok(Address { url, password: access.password.map(str::to_owned), database })
}

impl Address {
    /// A client, which connects by itself when it is used. Resolves the name of `mongodb+srv://`.
    pub async fn connect(&self) -> Result<Client, StoreError> {
        let mut options = ClientOptions::parse(self.url.clone()).await.map_err(told)?;
        options.app_name.get_or_insert_with(|| "fpesa".to_owned());
        options.max_pool_size.get_or_insert(CONNECTIONS);
        options.connect_timeout.get_or_insert(CONNECT_WITHIN);
        options.server_selection_timeout.get_or_insert(FIND_WITHIN);
        // These are the store's promises, and no choice of the URL's.
        let mut concern = WriteConcern::default();
        concern.w = Some(Acknowledgment::Majority);
        concern.journal = Some(true);
        concern.w_timeout = Some(MAJORITY_WITHIN);
        options.write_concern = Some(concern);
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        if let (Some(credential), Some(password)) = (&mut options.credential, &self.password) {
            credential.password = Some(password.clone());
        }
        Client::with_options(options).map_err(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access<'a>(url: &'a str, password: Option<&'a str>) -> Access<'a> {
        Access { url, password, data_dir: std::path::Path::new(".") }
    }

    #[tokio::test]
    async fn urls() {
        for (url, database) in [
            ("mongodb://u@h", "fpesa"),
            ("mongodb://u@h:1,g:2/d?replicaSet=r&w=1", "d"),
            ("mongodb+srv://u@cluster.example/events", "events"),
        ] {
            assert_eq!(read(&access(url, Some("s3cret"))).unwrap().database, database, "{url}");
        }
        for url in
            ["mongodb://u:hid?den@h/d", "mongodb://u:hidden@h:port/d", "mongodb://u:hidden@/d?w=-5", "mongodb://"]
        {
            let error = read(&access(url, None)).err().unwrap().to_string();
            assert!(error.contains("mongodb://user@host") && !error.contains("hid"), "{error}");
        }
        let error = read(&access("mongodb://h/d", Some("s3cret"))).err().unwrap().to_string();
        assert!(error.contains("names no user") && !error.contains("s3cret"), "{error}");
    }

    /// Whatever the URL says of it: a message is kept when a majority has it in its journals.
    #[tokio::test]
    async fn promises_are_not_for_the_url_to_weaken() {
        let address = read(&access("mongodb://u@h/d?w=0&journal=false&readPreference=nearest", Some("p"))).unwrap();
        let client = address.connect().await.unwrap();
        let database = client.database("d");
        let concern = database.write_concern().unwrap();
        assert_eq!((&concern.w, concern.journal), (&Some(Acknowledgment::Majority), Some(true)));
        assert_eq!(database.read_concern(), Some(&ReadConcern::majority()));
        assert!(matches!(
            database.selection_criteria(),
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        ));
    }
}
