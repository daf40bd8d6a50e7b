//! Notifications to a service manager (`Type=notify` of systemd), where `NOTIFY_SOCKET` names one.

use sd_notify::NotifyState;

/// The gateway accepts clients.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Shutdown has begun.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
    }
}
