-- A workspace may have thousands of apps: its deliveries in one order, and those of them that were given up.
-- Rows arrive in about that order, so that keeping the first costs a delivery little.
CREATE INDEX settled_of_workspace ON settled (workspace, delivery);
CREATE INDEX settled_exhausted_of_workspace ON settled (workspace, delivery) WHERE exhausted IS NOT NULL;
