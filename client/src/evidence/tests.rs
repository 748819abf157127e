//! Evidence of honest statements proves nothing, that of dishonest ones convicts who signed them.
