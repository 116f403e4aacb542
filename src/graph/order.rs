//! The order of nodes.

use super::Graph;

impl Graph {
    /// The same graph with every node from position `first` on, each of which reads results of
    /// nodes before, right behind the last node that writes what it reads: memory of those need not
    /// wait for it.
    ///
    /// # Panics
    /// When such a node reads what no node before `first` writes.
    #[must_use]
    pub fn hoisted(&self, first: usize) -> Self {
        let mut nodes = self.nodes();
        let late = nodes.split_off(first);
        let mut behind: Vec<Vec<_>> = vec![Vec::new(); nodes.len()];
        for node in late {
            let at = nodes.iter().rposition(|n| n.outputs.iter().any(|t| node.inputs.contains(t)));
            behind[at.expect("a node that reads another's result")].push(node);
        }
        let ordered = nodes.into_iter().zip(behind).flat_map(|(node, behind)| std::iter::once(node).chain(behind));
        self.with_nodes(ordered.collect())
    }
}
