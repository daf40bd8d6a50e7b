// `String.prototype.normalize`: the engine is built without Unicode tables. The package installs it where it is missing.
import "unorm";
