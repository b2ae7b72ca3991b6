//! One consumer: a connection and channel of its own, settled by the one task that owns them.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use lapin::{
    Channel, Connection,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, DeliveryTag, FieldTable},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    convert::{message, short},
    declare::is_not_found,
    link::{ANSWER_WITHIN, CLOSE_WITHIN, Options},
};
use crate::bus::{BusError, Deliveries, Delivery, Settlement, Ticket};

/// Consumes a queue; an `rpc` one is declared here and nowhere else.
pub(super) async fn consume(
    options: &Options,
    queue: &str,
    prefetch: u16,
    rpc: bool,
    closing: CancellationToken,
) -> Result<Deliveries, BusError> {
    let connection = options.connect(&format!("consume {queue}")).await.map_err(BusError::Down)?;
    // A link that breaks in the middle of this may leave a call of the library waiting for ever.
    let late = |_| Err(BusError::Down("the broker does not answer".into()));
    let preparing = prepare(&connection, queue, prefetch, rpc);
    let (channel, consumer) = tokio::time::timeout(ANSWER_WITHIN, preparing).await.unwrap_or_else(late)?;
    let (deliveries, received) = mpsc::channel(usize::from(prefetch.max(1)));
    let (settle, settled) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let owner = Owner { connection, channel, consumer, deliveries: Some(deliveries), unsettled: BTreeMap::new() };
    let stopping = stop.clone();
    tokio::spawn(async move { owner.run(settled, settle, stopping, closing).await });
    Ok(Deliveries::new(received, move || stop.cancel()))
}

async fn prepare(
    connection: &Connection,
    queue: &str,
    prefetch: u16,
    rpc: bool,
) -> Result<(Channel, lapin::Consumer), BusError> {
    let down = |error: lapin::Error| BusError::Down(error.to_string());
    let channel = connection.create_channel().await.map_err(down)?;
    channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await.map_err(down)?;
    if rpc {
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongInt(5_000));
        let options = QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() };
        channel
            .queue_declare(short(queue), options, arguments)
            .await
            .map_err(|error| BusError::Topology(format!("the rpc queue `{queue}` can't be declared: {error}")))?;
    }
    let consumer = channel
        .basic_consume(short(queue), "fpesa".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .map_err(|error| if is_not_found(&error) { BusError::NoQueue(queue.to_owned()) } else { down(error) })?;
    Ok((channel, consumer))
}

type Settled = (DeliveryTag, Settlement);

struct Owner {
    connection: Connection,
    channel: Channel,
    consumer: lapin::Consumer,
    /// Dropped when nothing more is delivered.
    deliveries: Option<mpsc::Sender<Delivery>>,
    /// What is out, in order of tag, and whether it is acked.
    unsettled: BTreeMap<DeliveryTag, bool>,
}

impl Owner {
    async fn run(
        mut self,
        mut settled: mpsc::UnboundedReceiver<Settled>,
        keep: mpsc::UnboundedSender<Settled>,
        stop: CancellationToken,
        closing: CancellationToken,
    ) {
        let mut cancelled = false;
        loop {
            if self.deliveries.is_none() && self.unsettled.is_empty() {
                break;
            }
            tokio::select! {
                first = settled.recv() => {
                    let Some(first) = first else { break };
                    if !self.settle_in_time(first, &mut settled).await {
                        break;
                    }
                }
                delivery = self.consumer.next(), if self.deliveries.is_some() => match delivery {
                    Some(Ok(delivery)) => self.deliver(delivery, &keep).await,
                    // Cancelled by us, its queue deleted, or the link broken.
                    _ => self.deliveries = None,
                },
                () = stop.cancelled(), if !cancelled => {
                    cancelled = true;
                    let tag = self.consumer.tag();
                    let cancel = self.channel.basic_cancel(tag, BasicCancelOptions::default());
                    if !matches!(tokio::time::timeout(ANSWER_WITHIN, cancel).await, Ok(Ok(()))) {
                        break;
                    }
                }
                () = closing.cancelled() => {
                    // What is settled already still goes out.
                    if let Ok(first) = settled.try_recv() {
                        self.settle_in_time(first, &mut settled).await;
                    }
                    break;
                }
            }
        }
        // The reader learns of the end before the broker does.
        self.deliveries = None;
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.connection.close(200, "bye".into())).await;
    }

    async fn deliver(&mut self, delivery: lapin::message::Delivery, keep: &mpsc::UnboundedSender<Settled>) {
        let tag = delivery.delivery_tag;
        let settle = keep.clone();
        self.unsettled.insert(tag, false);
        let delivered = Delivery {
            message: message(
                delivery.exchange.as_str(),
                delivery.routing_key.as_str(),
                &delivery.properties,
                delivery.data,
            ),
            redelivered: delivery.redelivered,
            ticket: Ticket::new(move |how| {
                // Where the task has ended the broker gives the message back by itself.
                let _ = settle.send((tag, how));
            }),
        };
        if let Some(deliveries) = &self.deliveries {
            // As many places as prefetch: there is one. A reader that is gone drops it, and the ticket gives it back.
            let _ = deliveries.send(delivered).await;
        }
    }

    /// Whether what is settled is on its way.
    async fn settle_in_time(&mut self, first: Settled, settled: &mut mpsc::UnboundedReceiver<Settled>) -> bool {
        matches!(tokio::time::timeout(ANSWER_WITHIN, self.settle_all(first, settled)).await, Ok(Ok(())))
    }

    /// Sends what is settled: acks without a gap before them as one.
    async fn settle_all(
        &mut self,
        first: Settled,
        settled: &mut mpsc::UnboundedReceiver<Settled>,
    ) -> lapin::Result<()> {
        let mut single = Vec::new();
        let mut next = Some(first);
        while let Some((tag, how)) = next {
            match how {
                Settlement::Ack => {
                    self.unsettled.insert(tag, true);
                }
                Settlement::Retry | Settlement::Reject => {
                    self.unsettled.remove(&tag);
                    single.push((tag, how == Settlement::Retry));
                }
            }
            next = settled.try_recv().ok();
        }
        for (tag, requeue) in single {
            let options = BasicNackOptions { multiple: false, requeue };
            self.channel.basic_nack(tag, options).await?;
        }
        let mut prefix = None;
        while let Some((tag, true)) = self.unsettled.first_key_value().map(|(tag, acked)| (*tag, *acked)) {
            self.unsettled.remove(&tag);
            prefix = Some(tag);
        }
        if let Some(tag) = prefix {
            self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
        let acked: Vec<DeliveryTag> = self.unsettled.iter().filter(|(_, acked)| **acked).map(|(tag, _)| *tag).collect();
        for tag in acked {
            self.unsettled.remove(&tag);
            self.channel.basic_ack(tag, BasicAckOptions::default()).await?;
        }
        Ok(())
    }
}
