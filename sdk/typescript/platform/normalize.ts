// `String.prototype.normalize`: the engine is built without Unicode's tables. The package puts it in place where it is missing.
import "unorm";
