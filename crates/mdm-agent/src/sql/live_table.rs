//! A table whose rows are read from the system when a query scans it, as an eponymous virtual
//! table of SQLite.
#![expect(
    unsafe_code,
    reason = "rusqlite's virtual table traits are unsafe to implement: both structs are repr(C) and begin with SQLite's own"
)]

use std::{cell::OnceCell, ffi::CStr, marker::PhantomData, os::raw::c_int, rc::Rc};

use rusqlite::{
    Connection, Error, ffi,
    types::Value,
    vtab::{Context, Filters, IndexInfo, VTab, VTabConnection, VTabCursor, eponymous_only_module},
};

/// One row, in the order of the columns.
pub type Row = Vec<Value>;

/// A table of the system.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name.
    pub name: &'static CStr,
    /// Its columns: name and type.
    pub columns: &'static [(&'static str, &'static str)],
    /// Reads its rows.
    pub rows: fn() -> Vec<Row>,
}

/// Makes a table known to a connection.
pub fn register(connection: &Connection, table: &'static Table) -> Result<(), Error> {
    connection.create_module(
        table.name,
        eponymous_only_module::<LiveTable>(),
        Some(*table),
    )
}

#[repr(C)]
struct LiveTable {
    /// SQLite's own. Must be first.
    base: ffi::sqlite3_vtab,
    table: Table,
    /// Read once for a query, however often a join scans it.
    rows: OnceCell<Rc<Vec<Row>>>,
}

// SAFETY: repr(C) with `sqlite3_vtab` as the first field, as the trait demands.
unsafe impl<'vtab> VTab<'vtab> for LiveTable {
    type Aux = Table;
    type Cursor = LiveCursor<'vtab>;

    fn connect(
        _: &mut VTabConnection,
        aux: Option<&Table>,
        _: &[&[u8]],
    ) -> Result<(String, Self), Error> {
        let table = *aux
            .ok_or_else(|| Error::ModuleError("a live table without its definition".to_owned()))?;
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|(name, kind)| format!("\"{name}\" {kind}"))
            .collect();
        let schema = format!("CREATE TABLE x({})", columns.join(", "));
        Ok((
            schema,
            Self {
                base: ffi::sqlite3_vtab::default(),
                table,
                rows: OnceCell::new(),
            },
        ))
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<(), Error> {
        info.set_estimated_cost(1_000.0);
        Ok(())
    }

    fn open(&'vtab mut self) -> Result<LiveCursor<'vtab>, Error> {
        let rows = self.rows.get_or_init(|| Rc::new((self.table.rows)()));
        Ok(LiveCursor {
            base: ffi::sqlite3_vtab_cursor::default(),
            rows: Rc::clone(rows),
            position: 0,
            table: PhantomData,
        })
    }
}

#[repr(C)]
struct LiveCursor<'vtab> {
    /// SQLite's own. Must be first.
    base: ffi::sqlite3_vtab_cursor,
    rows: Rc<Vec<Row>>,
    position: usize,
    table: PhantomData<&'vtab LiveTable>,
}

// SAFETY: repr(C) with `sqlite3_vtab_cursor` as the first field, as the trait demands.
unsafe impl VTabCursor for LiveCursor<'_> {
    fn filter(&mut self, _: c_int, _: Option<&str>, _: &Filters<'_>) -> Result<(), Error> {
        self.position = 0;
        Ok(())
    }

    fn next(&mut self) -> Result<(), Error> {
        self.position += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.position >= self.rows.len()
    }

    fn column(&self, context: &mut Context, index: c_int) -> Result<(), Error> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let value = self
            .rows
            .get(self.position)
            .and_then(|row| row.get(index))
            .unwrap_or(&Value::Null);
        context.set_result(value)
    }

    fn rowid(&self) -> Result<i64, Error> {
        Ok(i64::try_from(self.position).unwrap_or(i64::MAX))
    }
}
