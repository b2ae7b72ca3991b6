//! One consumer: a connection and channel of its own, settled by the one task that owns them.

use std::{collections::BTreeMap, future::Future, time::Duration};

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
    link::{ANSWER_WITHIN, CLOSE_WITHIN, Options, silence},
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
    let queue = queue.to_owned();
    let owner = Owner { channel, consumer, deliveries: Some(deliveries), unsettled: BTreeMap::new() };
    let stopping = stop.clone();
    tokio::spawn(async move {
        let lost = lost(&connection, &queue);
        owner.run(settled, settle, stopping, closing, lost).await;
        let _ = tokio::time::timeout(CLOSE_WITHIN, connection.close(200, "bye".into())).await;
    });
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
            .map_err(|error| BusError::queue(queue, format!("the rpc queue `{queue}` can't be declared: {error}")))?;
    }
    let consumer = channel
        .basic_consume(short(queue), "fpesa".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .map_err(|error| if is_not_found(&error) { BusError::NoQueue(queue.to_owned()) } else { down(error) })?;
    Ok((channel, consumer))
}

type Settled = (DeliveryTag, Settlement);

/// Ends, with the reason, when the broker does not know the consumer any more. A quorum queue that is deleted and declared
/// again within moments may come back without its consumers, who are not told (seen with RabbitMQ 3.10.8).
async fn lost(connection: &Connection, queue: &str) -> String {
    const EVERY: Duration = Duration::from_secs(1);
    /// A consumer that was just made need not be counted yet.
    const TIMES: u8 = 3;
    let look = async {
        let mut without = 0;
        while without < TIMES {
            tokio::time::sleep(EVERY).await;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let Ok(channel) = connection.create_channel().await else { return "the link broke".to_owned() };
            without = match channel.queue_declare(short(queue), options, FieldTable::default()).await {
                Ok(queue) if queue.consumer_count() == 0 => without + 1,
                Err(error) if is_not_found(&error) => return "the queue is gone".to_owned(),
                // A queue without a leader, a broken link: others tell.
                Ok(_) | Err(_) => 0,
            };
            let _ = channel.close(200, "looked".into()).await;
        }
        "the broker has forgotten the consumer".to_owned()
    };
    tokio::select! {
        why = look => why,
        why = silence(connection) => why,
    }
}

struct Owner {
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
        lost: impl Future<Output = String>,
    ) {
        tokio::pin!(lost);
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
                why = &mut lost, if !cancelled => {
                    tracing::warn!(why, "a consumer is lost");
                    break;
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
