// Whether the weights of a gather are stored (tap, column, depth), as the gradient of an input finds them, instead of (tap, depth, column).
const TURNED: bool = false;
