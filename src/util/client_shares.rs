//! Fair shares between clients: first between networks, then between subjects.

use std::net::IpAddr;
use std::sync::Arc;

use crate::util::client_key::ClientKey;
use crate::util::shares::{Refusal, Share, Shares};

/// A bounded resource of which each network, and each subject, gets a fair share while it is scarce. A trusted proxy that names no client,
/// and a client without a subject, are limited only by the other level.
#[derive(Clone, Debug)]
pub struct ClientShares {
    networks: Shares<IpAddr>,
    subjects: Shares<Arc<str>>,
}

/// What a client took. Dropping it gives it back.
#[derive(Debug)]
pub struct ClientShare {
    network: Share<IpAddr>,
    subject: Share<Arc<str>>,
}

impl ClientShares {
    /// One network may use everything, since all clients may come from one proxy; one subject leaves room for others.
    pub fn new(limit: usize) -> Self {
        Self { networks: Shares::new(limit), subjects: Shares::leaving_room(limit) }
    }

    pub fn take(&self, client: &ClientKey, amount: usize) -> Result<ClientShare, Refusal> {
        let network = self.networks.take(client.network, amount)?;
        let subject = self.subjects.take(client.subject.clone(), amount)?;
        Ok(ClientShare { network, subject })
    }

    /// What all clients have together.
    pub fn total(&self) -> usize {
        self.networks.total()
    }
}

impl ClientShare {
    /// Whether this client has it.
    pub fn is_of(&self, client: &ClientKey) -> bool {
        self.network.holder() == client.network.as_ref() && self.subject.holder() == client.subject.as_ref()
    }

    /// Another client has it from now on, whatever that client has already.
    pub fn transfer(&mut self, client: &ClientKey) {
        self.network.transfer(client.network);
        self.subject.transfer(client.subject.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_one_network_have_shares_and_so_have_networks() {
        let shares = ClientShares::new(100);
        let client = |network: u8, subject: &str| {
            ClientKey::of_address(Some([192, 0, 2, network].into())).with_subject(Some(subject.into()))
        };
        let mut of_flood = shares.take(&client(1, "flood"), 80).expect("not scarce");
        assert_eq!(shares.take(&client(1, "flood"), 1).err(), Some(Refusal::ShareExceeded), "room for other subjects");
        let _other = shares.take(&client(1, "other"), 10).expect("the first of this subject");
        assert_eq!(shares.take(&client(1, "flood"), 1).err(), Some(Refusal::ShareExceeded));
        let _elsewhere = shares.take(&client(2, "flood"), 1).expect_err("the subject has its share in every network");
        let _another = shares.take(&client(2, "another"), 5).expect("the first of this network");
        let proxied = ClientKey::default();
        let _proxied = shares.take(&proxied, 5).expect("only the limit applies");
        assert_eq!((shares.total(), shares.take(&proxied, 1).err()), (100, Some(Refusal::Exhausted)));
        of_flood.transfer(&client(2, "another"));
        drop(of_flood);
        let _again = shares.take(&client(1, "flood"), 30).expect("it holds nothing any more");
    }
}
