;;; client-table.el --- The table of clients and features  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; emacs -Q --batch -l tests/lisp/client-table.el TABLE REPORT...
;; writes the Org table TABLE of the REPORTs that run.el wrote.  A cell has the
;; versions of Emacs on which all of its tests passed, in all runs of each.

;;; Code:

(require 'cl-lib)
(require 'seq)
(require 'subr-x)

(defun client-table-read (file)
  "Return the report in FILE."
  (with-temp-buffer
    (insert-file-contents file)
    (read (current-buffer))))

(defun client-table-cell (client feature reports)
  "Return the text of the cell for CLIENT and FEATURE by REPORTS."
  (let (passed failed)
    (dolist (report reports)
      (dolist (result (plist-get report :results))
        (when (equal (list client feature) (seq-take result 2))
          (push (plist-get report :emacs) (if (nth 2 result) passed failed)))))
    (if (or passed failed)
        (string-join (sort (seq-difference (seq-uniq passed) failed) #'version<) ", ")
      "–")))

(defun client-table-versions (reports)
  "Return a sentence about the clients in REPORTS that are no part of Emacs."
  (let (versions)
    (dolist (report reports)
      (pcase-dolist (`(,client . ,version) (plist-get report :clients))
        (cl-pushnew (string-join (seq-take (split-string version "\\.") 2) ".")
                    (alist-get client versions nil nil #'equal)
                    :test #'equal)))
    (mapconcat (pcase-lambda (`(,client . ,numbers))
                 (format "%s %s" client
                         (string-join (sort numbers #'version<) " and ")))
               (sort versions (lambda (a b) (string< (car a) (car b))))
               "; ")))

(defun client-table-write (file reports)
  "Write the table of REPORTS into FILE."
  (let* ((features (plist-get (car reports) :features))
         (clients (sort (seq-uniq (mapcan (lambda (report)
                                            (mapcar #'car (plist-get report :results)))
                                          reports))
                        #'string-collate-lessp))
         (rows (cons (cons "Client" features)
                     (mapcar (lambda (client)
                               (cons client
                                     (mapcar (lambda (feature)
                                               (client-table-cell client feature reports))
                                             features)))
                             clients)))
         (widths (apply #'cl-mapcar
                        (lambda (&rest cells) (apply #'max (mapcar #'length cells)))
                        rows))
         (line (lambda (cells)
                 (insert "| "
                         (string-join (cl-mapcar #'string-pad cells widths) " | ")
                         " |\n"))))
    (with-temp-file file
      (insert "# Made by tests/matrix; do not edit.\n")
      (funcall line (car rows))
      (insert "|"
              (mapconcat (lambda (width) (make-string (+ 2 width) ?-)) widths "+")
              "|\n")
      (mapc line (cdr rows))
      (insert "\nWith " (client-table-versions reports)
              "; the others are part of Emacs.\n– is not tested.\n"))))

(client-table-write (car command-line-args-left)
                    (mapcar #'client-table-read (cdr command-line-args-left)))
(setq command-line-args-left nil)

;;; client-table.el ends here
