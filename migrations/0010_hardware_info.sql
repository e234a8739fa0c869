-- What a device says of its hardware is handed on as it is and never looked into: as `json` it is
-- stored as the text that answers need, where `jsonb` would be written out anew for each.
ALTER TABLE devices ALTER COLUMN hardware_info TYPE json USING hardware_info::json;
