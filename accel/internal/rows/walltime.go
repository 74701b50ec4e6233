package rows

import "time"

// epoch is when the process began, or soon after.
var epoch = time.Now()
