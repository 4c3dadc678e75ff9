;;; rs-smtpmail-outbox.el --- See what has not been sent  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; M-x rs-smtpmail-outbox lists the spool and follows it.  Listing all of a full
;; spool takes a moment, so that is done once.  After that the rows that an event
;; was about are looked at soon after it, many at once, and every few seconds
;; those on the screen, for ages grow and other Emacs processes use the spool
;; too; of these, the spool's directory tells what came and went.

;;; Code:

(require 'tabulated-list)
(require 'rs-smtpmail)
(require 'rs-smtpmail-engine)
(require 'rs-smtpmail-mode-line)
(require 'rs-smtpmail-outbox-row)
(eval-when-compile (require 'cl-lib))

(autoload 'rs-smtpmail-outbox-copy-reply "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-delete "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-edit "rs-smtpmail-outbox-edit" nil t)
(autoload 'rs-smtpmail-outbox-hold "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-mark "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-send "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-send-all "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-toggle-marks "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-unmark "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-unmark-all "rs-smtpmail-outbox-commands" nil t)
(autoload 'rs-smtpmail-outbox-view "rs-smtpmail-outbox-view" nil t)

;;;; Internal variables

(defconst rs-smtpmail--outbox-buffer "*Outbox*"
  "Name of the outbox's buffer.")

(defconst rs-smtpmail--outbox-soon 0.2
  "Seconds after an event until its row is looked at.")

(defconst rs-smtpmail--outbox-now-and-then 2
  "Seconds after which the rows on the screen are looked at again.")

(defvar rs-smtpmail--outbox-timer nil
  "Timer of the next update.")

(defvar rs-smtpmail--outbox-not-before 0
  "When the next update may be, as of `float-time'.")

(defvar-local rs-smtpmail--outbox-touched nil
  "Hash table whose keys are the ids of entries that may have changed.")

(defvar-local rs-smtpmail--outbox-listed nil
  "What `rs-smtpmail--spool-ids' has returned last.")

(defvar-local rs-smtpmail--outbox-marks nil
  "Hash table whose keys are the ids of the marked messages.")

(defvar-local rs-smtpmail--outbox-width nil
  "The width of the window for which the list was made.")

;;;; Printing

(defun rs-smtpmail--outbox-print (id columns)
  "Insert the row of entry ID with COLUMNS, and its mark."
  (tabulated-list-print-entry id columns)
  (when (gethash id rs-smtpmail--outbox-marks)
    (forward-line -1)
    (rs-smtpmail--outbox-show-mark t)
    (forward-line 1)))

(defun rs-smtpmail--outbox-show-mark (mark)
  "Show before the row at point whether it has a MARK."
  (tabulated-list-put-tag
   (if mark (propertize "*" 'face 'rs-smtpmail-outbox-mark) " ")))

(defun rs-smtpmail--outbox-goto (id)
  "Go to the row of entry ID; return nil if there is none."
  (goto-char (point-min))
  (while (and (not (eobp)) (not (equal id (tabulated-list-get-id))))
    (forward-line 1))
  (not (eobp)))

(defun rs-smtpmail--outbox-places (positions)
  "Return descriptions of POSITIONS for `rs-smtpmail--outbox-find-place'."
  (save-excursion
    (mapcar (lambda (position)
              (goto-char position)
              (list (tabulated-list-get-id) (line-number-at-pos) (current-column)))
            positions)))

(defun rs-smtpmail--outbox-find-place (place)
  "Return the position of PLACE, or of what is on its line now."
  (pcase-let ((`(,id ,line ,column) place))
    (save-excursion
      (unless (and id (rs-smtpmail--outbox-goto id))
        (goto-char (point-min))
        (forward-line (1- line))
        (when (and (eobp) (not (bobp)))
          (forward-line -1)))
      (move-to-column column)
      (point))))

(defun rs-smtpmail--outbox-print-all ()
  "Print the list anew; each window stays at its place."
  (let* (;; Garbage collections would take most of the time for a long list.
         (gc-cons-threshold most-positive-fixnum)
         (deactivate-mark nil)
         (inhibit-read-only t)
         (windows (get-buffer-window-list nil nil t))
         (point-places (rs-smtpmail--outbox-places
                        (cons (point) (mapcar #'window-point windows))))
         (start-places (rs-smtpmail--outbox-places
                        (mapcar #'window-start windows))))
    (setq tabulated-list-format
          (rs-smtpmail--outbox-format (or rs-smtpmail--outbox-width 80)))
    (tabulated-list-init-header)
    (tabulated-list-print)
    (when (bobp)
      (goto-char (point-max)))
    (when (zerop (hash-table-count rs-smtpmail--outbox-entries))
      (insert (propertize "No mail waits here: all of it has been sent.\n"
                          'face 'shadow))
      (set-buffer-modified-p nil))
    (cl-mapc (lambda (window start point)
               (set-window-start window (rs-smtpmail--outbox-find-place start) t)
               (set-window-point window (rs-smtpmail--outbox-find-place point)))
             windows start-places (cdr point-places))
    (goto-char (rs-smtpmail--outbox-find-place (car point-places)))))

(defun rs-smtpmail--outbox-columns (windows)
  "Return the columns of point in WINDOWS, nil being the buffer's own."
  (save-excursion
    (mapcar (lambda (window)
              (when window
                (goto-char (window-point window)))
              (current-column))
            windows)))

(defun rs-smtpmail--outbox-move-to-columns (windows columns)
  "Put point in WINDOWS into COLUMNS, where there is a row."
  (cl-mapc (lambda (window column)
             (save-excursion
               (when window
                 (goto-char (window-point window)))
               (when (and (eobp) (not (bobp)))
                 (forward-line -1))
               (move-to-column column)
               (setq column (point)))
             (if window
                 (set-window-point window column)
               (goto-char column)))
           windows columns))

(defun rs-smtpmail--outbox-reprint (looked-at new)
  "Print the rows of LOOKED-AT anew, a hash table from id to entry or `gone'.
NEW are the ids of those that have no row yet."
  (let* ((deactivate-mark nil)
         (inhibit-read-only t)
         (now (float-time))
         (left (- (hash-table-count looked-at) (length new)))
         (windows (cons nil (get-buffer-window-list nil nil t)))
         (columns (rs-smtpmail--outbox-columns windows)))
    (save-excursion
      (goto-char (point-min))
      (while (and (> left 0) (not (eobp)))
        (let* ((change (gethash (tabulated-list-get-id) looked-at))
               (row (and (consp change) (rs-smtpmail--outbox-row change now))))
          (when change
            (cl-decf left))
          (if (or (null change) (equal row (tabulated-list-get-entry)))
              (forward-line 1)
            (let ((id (tabulated-list-get-id)))
              (delete-region (point) (line-beginning-position 2))
              (when row
                (rs-smtpmail--outbox-print id row))))))
      (goto-char (point-max))
      (dolist (id new)
        (rs-smtpmail--outbox-print
         id (rs-smtpmail--outbox-row (gethash id looked-at) now))))
    ;; Points in a row that is printed anew are at its start now.
    (rs-smtpmail--outbox-move-to-columns windows columns)
    (set-buffer-modified-p nil)))

;;;; Following what happens

(defun rs-smtpmail--outbox-event-id (event)
  "Return the id of the entry that EVENT is about, or nil."
  (or (plist-get event :id) (plist-get (plist-get event :entry) :id)))

(defun rs-smtpmail--outbox-hear (event)
  "Show soon what EVENT is about."
  (let ((buffer (get-buffer rs-smtpmail--outbox-buffer))
        (id (rs-smtpmail--outbox-event-id event)))
    (when (and buffer id)
      (puthash id t (buffer-local-value 'rs-smtpmail--outbox-touched buffer))
      (rs-smtpmail--outbox-update-in rs-smtpmail--outbox-soon))))

(defun rs-smtpmail--outbox-update-in (seconds)
  "See to it that the list is brought up to date in SECONDS, or earlier.
But leave Emacs the time for other things, however long the list is."
  (let* ((due (max (+ (float-time) seconds) rs-smtpmail--outbox-not-before))
         (timer rs-smtpmail--outbox-timer)
         (waits (memq timer timer-list)))
    (unless (and waits (<= (float-time (timer--time timer)) due))
      (when waits
        (cancel-timer timer))
      (setq rs-smtpmail--outbox-timer
            (run-at-time (- due (float-time)) nil
                         #'rs-smtpmail--outbox-update)))))

(defun rs-smtpmail--outbox-update ()
  "Bring the outbox up to date if it is on the screen."
  (let ((buffer (get-buffer rs-smtpmail--outbox-buffer)))
    (when (and buffer (get-buffer-window buffer 'visible))
      (with-current-buffer buffer
        (let ((start (float-time)))
          (unwind-protect
              (rs-smtpmail--guarded "showing the outbox" #'rs-smtpmail--outbox-follow)
            (let ((now (float-time)))
              (setq rs-smtpmail--outbox-not-before (+ now (* 10 (- now start)))))
            (rs-smtpmail--outbox-update-in rs-smtpmail--outbox-now-and-then)))))))

(defun rs-smtpmail--outbox-follow ()
  "Show what has changed since the last time."
  (let ((touched rs-smtpmail--outbox-touched)
        (width (rs-smtpmail--outbox-window-width)))
    (setq rs-smtpmail--outbox-touched (make-hash-table :test #'equal))
    (rs-smtpmail--outbox-touch-listed touched)
    (rs-smtpmail--outbox-touch-visible touched)
    (let* ((had (hash-table-count rs-smtpmail--outbox-entries))
           (new (rs-smtpmail--outbox-look-at touched))
           (has (hash-table-count rs-smtpmail--outbox-entries)))
      (if (or (not (eql width rs-smtpmail--outbox-width))
              (and new tabulated-list-sort-key)
              (not (eq (zerop had) (zerop has))))
          (progn (setq rs-smtpmail--outbox-width width)
                 (rs-smtpmail--outbox-print-all))
        (rs-smtpmail--outbox-reprint touched new)))
    (rs-smtpmail--outbox-show-counts)))

(defun rs-smtpmail--outbox-window-width ()
  "Return the width for which the list is to be made."
  (let ((windows (get-buffer-window-list nil nil 'visible)))
    (if windows
        (apply #'min (mapcar #'window-max-chars-per-line windows))
      rs-smtpmail--outbox-width)))

(defun rs-smtpmail--outbox-touch-listed (touched)
  "Add to TOUCHED, a hash table, the ids that came to the spool, or left it."
  (let ((listed (rs-smtpmail--spool-ids rs-smtpmail--outbox-listed)))
    (unless (eq listed rs-smtpmail--outbox-listed)
      (setq rs-smtpmail--outbox-listed listed)
      (let ((there (make-hash-table :test #'equal)))
        (dolist (id (cdr listed))
          (puthash id t there)
          (unless (gethash id rs-smtpmail--outbox-entries)
            (puthash id t touched)))
        (maphash (lambda (id _)
                   (unless (gethash id there)
                     (puthash id t touched)))
                 rs-smtpmail--outbox-entries)))))

(defun rs-smtpmail--outbox-touch-visible (touched)
  "Add to TOUCHED, a hash table, the ids of the rows on the screen."
  (save-excursion
    (dolist (window (get-buffer-window-list nil nil 'visible))
      (goto-char (window-start window))
      (dotimes (_ (window-height window))
        (when-let ((id (tabulated-list-get-id)))
          (puthash id t touched))
        (forward-line 1)))))

(defun rs-smtpmail--outbox-look-at (touched)
  "Look at the entries whose ids are the keys of TOUCHED.
Make the entry, or `gone', the value.  Return the ids of new ones, oldest
first."
  (let (new)
    (maphash (lambda (id _)
               (let ((entry (ignore-error rs-smtp-error (rs-smtp-queue-list id))))
                 (puthash id (or entry 'gone) touched)
                 (if (null entry)
                     (rs-smtpmail--outbox-forget id)
                   (unless (gethash id rs-smtpmail--outbox-entries)
                     (push id new))
                   (puthash id entry rs-smtpmail--outbox-entries))))
             touched)
    ;; Ids grow with time.
    (sort new #'string<)))

(defun rs-smtpmail--outbox-forget (id)
  "Forget entry ID, which is gone."
  (remhash id rs-smtpmail--outbox-entries)
  (remhash id rs-smtpmail--outbox-marks))

(defun rs-smtpmail--outbox-show-counts ()
  "Show in the mode line how many entries there are."
  (let ((text (concat " " (rs-smtpmail--count-text
                           (rs-smtpmail--count-states
                            (mapcar (lambda (entry) (plist-get entry :state))
                                    (hash-table-values
                                     rs-smtpmail--outbox-entries)))))))
    (unless (equal text mode-line-process)
      (setq mode-line-process text)
      (force-mode-line-update))))

(defun rs-smtpmail--outbox-list (&rest _)
  "List the whole spool anew, sorted anew."
  ;; First, so that what changes meanwhile is noticed later.
  (setq rs-smtpmail--outbox-listed (rs-smtpmail--spool-ids nil)
        rs-smtpmail--outbox-width (rs-smtpmail--outbox-window-width))
  (let ((marked (hash-table-keys rs-smtpmail--outbox-marks)))
    (clrhash rs-smtpmail--outbox-touched)
    (clrhash rs-smtpmail--outbox-entries)
    (dolist (entry (rs-smtp-queue-list))
      (puthash (plist-get entry :id) entry rs-smtpmail--outbox-entries))
    (dolist (id marked)
      (unless (gethash id rs-smtpmail--outbox-entries)
        (remhash id rs-smtpmail--outbox-marks))))
  (rs-smtpmail--outbox-print-all)
  (rs-smtpmail--outbox-show-counts))

;;;; Mode

(defvar rs-smtpmail-outbox-mode-map
  (let ((map (make-sparse-keymap)))
    (pcase-dolist (`(,key . ,command)
                   '(("\r" . rs-smtpmail-outbox-view)
                     ("v" . rs-smtpmail-outbox-view)
                     ("e" . rs-smtpmail-outbox-edit)
                     ("s" . rs-smtpmail-outbox-send)
                     ("A" . rs-smtpmail-outbox-send-all)
                     ("h" . rs-smtpmail-outbox-hold)
                     ("d" . rs-smtpmail-outbox-delete)
                     ("m" . rs-smtpmail-outbox-mark)
                     ("u" . rs-smtpmail-outbox-unmark)
                     ("U" . rs-smtpmail-outbox-unmark-all)
                     ("t" . rs-smtpmail-outbox-toggle-marks)
                     ("w" . rs-smtpmail-outbox-copy-reply)
                     ("?" . describe-mode)))
      (define-key map key command))
    map)
  "Keymap of `rs-smtpmail-outbox-mode'.")

(define-derived-mode rs-smtpmail-outbox-mode tabulated-list-mode "Outbox"
  "Major mode for the mail that has not been sent yet.
The list follows what happens; where it is sorted by a column, that is
done anew by \\[revert-buffer].  \"These messages\" are the marked ones,
or else the one on this line.  All replies to a message are shown in the
echo area after a moment.

\\<rs-smtpmail-outbox-mode-map>\
\\[rs-smtpmail-outbox-view]	look at this message and at the replies to it
\\[rs-smtpmail-outbox-edit]	edit this message
\\[rs-smtpmail-outbox-send]	send these messages now
\\[rs-smtpmail-outbox-send-all]	send all that waits, here and in smtpmail's queue, now, after asking
\\[rs-smtpmail-outbox-hold]	hold these messages, or release them
\\[rs-smtpmail-outbox-delete]	delete these messages
\\[rs-smtpmail-outbox-copy-reply]	copy the replies to these messages
\\[rs-smtpmail-outbox-mark], \\[rs-smtpmail-outbox-unmark]	mark or unmark this message
\\[rs-smtpmail-outbox-toggle-marks], \\[rs-smtpmail-outbox-unmark-all]	toggle or remove all marks
\\[tabulated-list-sort]	sort by the column at point; again, the other way round
\\[revert-buffer]	list everything anew

The states are

waiting	is sent as soon as possible, or tried again at \"Next\"
scheduled	is sent at the time \"Next\" (or on that day), as you wished
sending	is being sent; large messages tell how far they are
held	is not sent before you release it
editing	is held, for you edit it in another buffer
password?	waits for you to answer with a password
needs you	can't be sent until you have put something in order
unconfirmed	may have been delivered: the line broke before the answer
failed	was refused for good
filing	has been sent; only its copy has not been filed yet"
  :interactive nil
  (setq tabulated-list-entries #'rs-smtpmail--outbox-rows
        tabulated-list-padding 2
        tabulated-list-printer #'rs-smtpmail--outbox-print
        rs-smtpmail--outbox-entries (make-hash-table :test #'equal)
        rs-smtpmail--outbox-marks (make-hash-table :test #'equal)
        rs-smtpmail--outbox-touched (make-hash-table :test #'equal))
  (setq-local revert-buffer-function #'rs-smtpmail--outbox-list)
  (add-hook 'window-buffer-change-functions #'rs-smtpmail--outbox-seen nil t)
  (add-hook 'window-size-change-functions #'rs-smtpmail--outbox-seen nil t)
  (add-hook 'eldoc-documentation-functions #'rs-smtpmail--outbox-eldoc nil t)
  (add-hook 'kill-buffer-hook #'rs-smtpmail--outbox-stop nil t)
  (add-hook 'rs-smtpmail--event-functions #'rs-smtpmail--outbox-hear)
  (eldoc-mode))

(defun rs-smtpmail--outbox-seen (&rest _)
  "Bring the list up to date, for it is on the screen now."
  (rs-smtpmail--outbox-update-in 0))

(defun rs-smtpmail--outbox-stop ()
  "Follow the events no longer."
  (remove-hook 'rs-smtpmail--event-functions #'rs-smtpmail--outbox-hear)
  (when rs-smtpmail--outbox-timer
    (cancel-timer rs-smtpmail--outbox-timer)))

;;;###autoload
(defun rs-smtpmail-outbox (&optional id)
  "Show the mail that has not been sent yet; go to message ID, if given.
What an earlier Emacs left is taken up, each message at its time."
  (interactive)
  (unless rs-smtpmail--resumed
    (rs-smtpmail--guarded "resuming" #'rs-smtpmail-resume))
  (let ((buffer (get-buffer-create rs-smtpmail--outbox-buffer)))
    (with-current-buffer buffer
      (unless (derived-mode-p 'rs-smtpmail-outbox-mode)
        (rs-smtpmail-outbox-mode)))
    (pop-to-buffer buffer)
    (rs-smtpmail--outbox-list)
    (rs-smtpmail--outbox-update-in rs-smtpmail--outbox-now-and-then)
    (when id
      (unless (rs-smtpmail--outbox-goto id)
        (goto-char (point-min))
        (message "That message is not in the outbox any more")))))

(provide 'rs-smtpmail-outbox)

;;; rs-smtpmail-outbox.el ends here
