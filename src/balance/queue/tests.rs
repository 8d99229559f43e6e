use std::time::Duration;

use super::*;

#[tokio::test]
async fn first_come_first_served_whatever_becomes_due_first() {
    let queue = Arc::new(Queue::default());
    let mut blocker = queue.enter(9).unwrap();
    let held = blocker.turn(1).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (i, delay) in [30, 10, 20].into_iter().enumerate() {
        let mut place = queue.enter(9).unwrap();
        let order = order.clone();
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let _turn = place.turn(1).await;
            order.lock().unwrap().push(i);
        }));
    }
    while queue.lock().due.len() < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    drop(blocker);
    let state = queue.lock();
    assert_eq!((state.waiting, state.sending, state.due.len()), (0, 0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_departure_makes_room() {
    let queue = Arc::new(Queue::default());
    let first = queue.enter(2).unwrap();
    let second = queue.enter(2).unwrap();
    assert!(queue.enter(2).is_none());
    drop(first);
    let third = queue.enter(2).unwrap();
    assert_eq!(queue.depth(), 2);
    drop((second, third));
    assert_eq!(queue.depth(), 0);
}

#[tokio::test]
async fn who_leaves_while_due_takes_no_turn() {
    let queue = Arc::new(Queue::default());
    let mut a = queue.enter(9).unwrap();
    let held = a.turn(1).await;
    let mut b = queue.enter(9).unwrap();
    {
        let waiting = b.turn(1);
        tokio::pin!(waiting);
        assert!(
            tokio::time::timeout(Duration::from_millis(5), &mut waiting)
                .await
                .is_err()
        );
    }
    drop(held);
    assert_eq!(queue.lock().sending, 0);
    let mut c = queue.enter(9).unwrap();
    let turn = tokio::time::timeout(Duration::from_secs(1), c.turn(1)).await;
    assert!(turn.is_ok());
}

#[tokio::test]
async fn no_more_than_the_workers_send() {
    let queue = Arc::new(Queue::default());
    let most = Arc::new(Mutex::new((0, 0)));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (mut place, most) = (queue.enter(50).unwrap(), most.clone());
            tokio::spawn(async move {
                let _turn = place.turn(4).await;
                {
                    let mut most = most.lock().unwrap();
                    most.0 += 1;
                    most.1 = most.1.max(most.0);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                most.lock().unwrap().0 -= 1;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(most.lock().unwrap().1, 4);
}
